//! `nat-sim worlds` and `nat-sim replay`.

use std::io::Write;
use std::time::SystemTime;

use nat_sim::matrix::in_parallel;
use nat_sim::node::populate;
use nat_sim::random;
use serde_json::json;

use crate::Failure;
use crate::cli::{ReplayOptions, WorldsOptions};

/// How many worlds run between two lines that say how far it is.
const BATCH: u32 = 10_000;

pub(crate) fn run(options: &WorldsOptions, out: &mut impl Write) -> Result<(), Failure> {
    let (mut done, mut direct, mut broken) = (0, 0, 0);
    while done < options.count {
        let count = BATCH.min(options.count - done);
        let first = options.seed.wrapping_add(u64::from(done));
        let reports = in_parallel(count as usize, |n| random::run(first.wrapping_add(n as u64)));
        done += count;
        direct += reports.iter().filter(|report| report.is_direct).count();
        for report in reports.iter().filter(|report| !report.broken.is_empty()) {
            broken += 1;
            if options.json {
                let at = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
                let (seed, world, rules) = (report.seed, &report.what, &report.broken);
                let event =
                    json!({"event": "broken", "at": at, "seed": seed, "world": world, "rules": rules});
                writeln!(out, "{event}")?;
            } else {
                writeln!(out, "{report}\n    nat-sim replay {}", report.seed)?;
            }
        }
        if !options.json {
            writeln!(out, "{done} worlds, {direct} of them direct in the end, {broken} broke a rule")?;
        }
        out.flush()?;
    }
    if options.json {
        let at = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        let event = json!({"event": "worlds", "at": at, "count": done, "direct": direct, "broken": broken});
        writeln!(out, "{event}")?;
    }
    if broken == 0 { Ok(()) } else { Err(Failure::Broken) }
}

pub(crate) fn replay(options: &ReplayOptions, out: &mut impl Write) -> Result<(), Failure> {
    let seed = options.seed;
    let Some(pair) = options.pair else {
        let (report, story) = random::tell(seed, true);
        writeln!(out, "{story}\n{report}")?;
        return if report.broken.is_empty() { Ok(()) } else { Err(Failure::Broken) };
    };
    let setting = options.setting.setting();
    let mut world = populate(&pair.plan(&setting, seed).telling_the_story(), setting.mutation);
    let run = pair.run_in(&mut world, &setting);
    write!(out, "{}", world.story())?;
    let connector = if pair.connects_from_a(seed) { pair.a } else { pair.b };
    writeln!(out, "\nseed {seed}: {pair}, {connector} connects, needs {}", pair.remedy())?;
    match run.direct {
        Some(took) => writeln!(out, "direct {:.1} ms after the offer", took.as_secs_f64() * 1e3)?,
        None => writeln!(out, "not direct within five seconds of the offer")?,
    }
    run.faults.iter().try_for_each(|fault| writeln!(out, "{fault}"))?;
    Ok(())
}
