//! `nat-sim matrix`.

use std::io::Write;
use std::time::{Duration, SystemTime};
use std::{fs, io};

use nat_sim::matrix::{Cell, Pair, all_pairs};
use nat_sim::oracle::Remedy;
use serde_json::json;

use crate::cli::{MatrixOptions, SettingOptions};
use crate::{Failure, html};

pub(crate) fn run(options: &MatrixOptions, out: &mut impl Write) -> Result<(), Failure> {
    let setting = options.setting.setting();
    let pairs = if options.pairs.is_empty() { all_pairs() } else { options.pairs.clone() };
    let mut cells = Vec::with_capacity(pairs.len());
    if !options.json {
        writeln!(out, "{HEAD}")?;
    }
    for pair in pairs {
        let cell = Cell::measure(pair, &setting, options.runs as usize, options.seed);
        if options.json {
            writeln!(out, "{}", event(&cell, &options.setting))?;
        } else {
            write_row(&cell, &options.setting, out)?;
        }
        out.flush()?;
        cells.push(cell);
    }
    if let Some(path) = &options.html {
        fs::write(path, html::page(&cells, options))
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    }
    let broken = cells.iter().filter(|cell| !holds(cell, &options.setting)).count();
    if !options.json {
        writeln!(
            out,
            "\n{} pairs, {} runs each; {broken} are not as they should be",
            cells.len(),
            options.runs
        )?;
    }
    if broken == 0 { Ok(()) } else { Err(Failure::Broken) }
}

/// How many runs in a thousand may fail to be direct, by what the pair needs: a port that is guessed may be
/// another host's by then, and 1715 probes of a birthday search find nothing once in a thousand.
fn tolerance(pair: &Pair, is_lossy: bool) -> usize {
    match pair.remedy() {
        Remedy::Birthday => 5,
        Remedy::Predict => 10,
        // 1 - exp(-(3/4)²) of them are found, and a little less where a packet is lost.
        Remedy::Scatter => 650,
        Remedy::RelayOnly => 1000,
        Remedy::HostCandidate
        | Remedy::Ipv6
        | Remedy::Plain
        | Remedy::Hairpin
        | Remedy::PeerReflexive
        | Remedy::Prime
        | Remedy::SendOrder => usize::from(is_lossy),
    }
}

/// Whether a cell is as it should be: no rule broken, and every run direct but for those that the remedy, or the
/// loss of packets, excuses. A remedy that was taken away excuses everything.
pub(crate) fn holds(cell: &Cell, setting: &SettingOptions) -> bool {
    let allowed = (cell.runs * tolerance(&cell.pair, setting.loss > 0.0)).div_ceil(1000);
    let is_direct = cell.runs - cell.direct <= allowed;
    setting.without.is_some() || cell.faults.is_empty() && is_direct
}

pub(crate) fn ms(time: Option<Duration>) -> Option<f64> {
    time.map(|time| (time.as_secs_f64() * 10_000.0).round() / 10.0)
}

fn event(cell: &Cell, setting: &SettingOptions) -> serde_json::Value {
    json!({
        "event": "pair",
        "at": humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
        "a": cell.pair.a.to_string(),
        "b": cell.pair.b.to_string(),
        "runs": cell.runs,
        "direct": cell.direct,
        "late": cell.late,
        "unreached": cell.unreached,
        "remedy": cell.pair.remedy().name(),
        "median_ms": ms(cell.quantile(0.5)),
        "p99_ms": ms(cell.quantile(0.99)),
        "first_verdict_ms": ms(cell.verdict_quantile(0.5).map(|(one, _)| one)),
        "verdict_ms": ms(cell.verdict_quantile(0.5).map(|(_, both)| both)),
        "r_ms": setting.server_rtt,
        "d_ms": setting.direct_rtt,
        "packets_a": cell.packets[0].round(),
        "packets_b": cell.packets[1].round(),
        "faults": cell.faults.len(),
    })
}

const HEAD: &str = "pair                                                                  \
                    remedy           direct      median      p99   packets";

fn write_row(cell: &Cell, setting: &SettingOptions, out: &mut impl Write) -> io::Result<()> {
    let time = |share| ms(cell.quantile(share)).map_or("–".to_owned(), |ms| format!("{ms:.1} ms"));
    let [a, b] = cell.packets;
    let verdict = cell.verdict_quantile(0.99).map_or(String::new(), |(one, both)| {
        let [one, both] = [one, both].map(|time| time.as_secs_f64() * 1e3);
        format!("  verdict {one:.1} ms, of both {both:.1} ms")
    });
    writeln!(
        out,
        "{:<69} {:<14} {:>5}/{:<5} {:>10} {:>10}  {a:>4.0} {b:>4.0}{verdict}",
        cell.pair.to_string(),
        cell.pair.remedy().name(),
        cell.direct,
        cell.runs,
        time(0.5),
        time(0.99),
    )?;
    if holds(cell, setting) {
        return Ok(());
    }
    let flags = setting.flags();
    for seed in cell.failed.iter().take(3) {
        writeln!(out, "    not direct: nat-sim replay {seed} --pair '{}'{flags}", cell.pair)?;
    }
    for (seed, fault) in cell.faults.iter().take(3) {
        writeln!(out, "    {fault}: nat-sim replay {seed} --pair '{}'{flags}", cell.pair)?;
    }
    Ok(())
}
