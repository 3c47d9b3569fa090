//! The matrix as one self-contained page.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use nat_sim::kind::Kind;
use nat_sim::matrix::Cell;

use crate::cli::MatrixOptions;
use crate::matrix::{holds, ms};

const STYLE: &str = include_str!("matrix.css");
const SCRIPT: &str = include_str!("matrix.js");

/// The page.
pub(crate) fn page(cells: &[Cell], options: &MatrixOptions) -> String {
    let mut by_pair = BTreeMap::new();
    let mut kinds: Vec<Kind> = Vec::new();
    for cell in cells {
        by_pair.insert((cell.pair.a, cell.pair.b), (cell, false));
        by_pair.entry((cell.pair.b, cell.pair.a)).or_insert((cell, true));
        for kind in [cell.pair.a, cell.pair.b] {
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
    }
    let order: Vec<Kind> = Kind::all().into_iter().chain(Kind::FURTHER).collect();
    kinds.sort_by_key(|kind| order.iter().position(|known| known == kind));
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>NAT matrix</title>\n<style>\n{STYLE}</style>\n<h1>NAT matrix</h1>\n"
    );
    push(&mut page, &summary(cells, options));
    push(&mut page, LEGEND);
    push(&mut page, "<div class=\"scroll\"><table>\n<thead><tr><th></th>");
    for kind in &kinds {
        push(&mut page, &format!("<th class=\"top\"><span>{kind}</span></th>"));
    }
    push(&mut page, "</tr></thead>\n<tbody>\n");
    for a in &kinds {
        push(&mut page, &format!("<tr><th class=\"side\">{a}</th>"));
        for b in &kinds {
            match by_pair.get(&(*a, *b)) {
                Some((cell, is_mirrored)) => push(&mut page, &square(cell, *is_mirrored, options)),
                None => push(&mut page, "<td class=\"none\"></td>"),
            }
        }
        push(&mut page, "</tr>\n");
    }
    push(
        &mut page,
        &format!("</tbody></table></div>\n<div id=\"tip\" hidden></div>\n<script>\n{SCRIPT}</script>\n"),
    );
    page
}

fn push(page: &mut String, text: &str) {
    page.push_str(text);
}

fn summary(cells: &[Cell], options: &MatrixOptions) -> String {
    let possible = || cells.iter().filter(|cell| cell.pair.remedy().is_direct());
    let always = possible().filter(|cell| cell.is_always_direct()).count();
    let (runs, direct) =
        possible().fold((0, 0), |(runs, direct), cell| (runs + cell.runs, direct + cell.direct));
    let share = if runs == 0 { 0.0 } else { direct as f64 / runs as f64 * 100.0 };
    let setting = &options.setting;
    format!(
        "<p class=\"lead\"><b>{always} of {}</b> pairs that can be direct were so in every run; \
         <b>{share:.2} %</b> of their {runs} runs were.</p>\n\
         <p class=\"small\">{} runs of each pair, R {} ms, D {} ms, loss {} %, jitter {} ms, {} foreign flows a second \
         through each router, seed {}. \
         A number is the median time in ms from the offer until both sides had a path.</p>\n",
        possible().count(),
        options.runs,
        setting.server_rtt,
        setting.direct_rtt,
        setting.loss * 100.0,
        setting.jitter,
        setting.foreign_flows,
        options.seed,
    )
}

const LEGEND: &str = "<ul class=\"legend\">\
    <li><i class=\"all\"></i>every run direct</li>\
    <li><i class=\"most\"></i>at least 99 %</li>\
    <li><i class=\"some\"></i>fewer</li>\
    <li><i class=\"failed\"></i>none, and it should be</li>\
    <li><i class=\"relay\"></i>relay only</li></ul>\n";

fn square(cell: &Cell, is_mirrored: bool, options: &MatrixOptions) -> String {
    let remedy = cell.pair.remedy();
    let share = cell.direct as f64 / cell.runs.max(1) as f64;
    let class = match (cell.direct, remedy.is_direct()) {
        (direct, ..) if direct == cell.runs => "all",
        (0, true) => "failed",
        (0, false) => "relay",
        _ if share >= 0.99 => "most",
        _ => "some",
    };
    let [mut ours, mut theirs] = cell.packets;
    let (mut a, mut b) = (cell.pair.a, cell.pair.b);
    if is_mirrored {
        (a, b, ours, theirs) = (b, a, theirs, ours);
    }
    let time = |share| ms(cell.quantile(share)).map_or("–".to_owned(), |ms| format!("{ms:.0} ms"));
    let mut tip = format!(
        "{a} × {b}|{} of {} direct ({:.2} %)|needs: {remedy}|median {}, p99 {}|packets {ours:.0} and {theirs:.0}",
        cell.direct,
        cell.runs,
        share * 100.0,
        time(0.5),
        time(0.99),
    );
    if cell.unreached > 0 {
        let _ = write!(tip, "|{} ended with a clear verdict", cell.unreached);
    }
    if let Some((one, both)) = cell.verdict_quantile(0.99) {
        let [one, both] = [one, both].map(|time| time.as_millis());
        let _ = write!(tip, "|no direct path: known to one side after {one} ms, to both after {both} ms");
    }
    if let Some((seed, fault)) = cell.faults.first() {
        let _ = write!(tip, "|{fault} (seed {seed})");
    }
    let alarm = if holds(cell, &options.setting) { "" } else { " alarm" };
    let text = ms(cell.quantile(0.5)).map_or(String::new(), |ms| format!("{ms:.0}"));
    format!("<td class=\"{class}{alarm}\" tabindex=\"0\" data-tip=\"{tip}\">{text}</td>")
}
