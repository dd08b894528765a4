//! Tests of `systole bench`: short runs whose JSON must match the options.

use serde_json::Value;

use crate::gateway::{Gateway, ONE_SECOND, wait};
use crate::program::Program;
use crate::{directory, snapshot, systole};

fn bench(name: &str, args: &[&str]) -> Value {
    let directory = directory(name);
    let mut command = systole(&directory, &["bench", "--json", "--warmup", "200ms"]);
    let output = command.args(args).output().expect("the program was built");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.starts_with("bench: about "), "no length of the whole run: {stderr}");
    serde_json::from_slice(&output.stdout).expect("JSON was asked for")
}

#[test]
fn two_hundred_links_send_heartbeats_to_the_baseline() {
    let args = ["--baseline-only", "--links", "200", "--workers", "2", "--threads", "2"];
    let pace = ["--settle", "100ms", "--window", "1s", "--period", "100ms"];
    let report = bench("bench-baseline", &[&args[..], &pace].concat());
    assert_eq!(report["links"], 200);
    assert_eq!(report["workers"], 2);
    assert_eq!(report["ok"], true);
    let round = &report["rounds"][0];
    assert_eq!(round["target"], "baseline");
    assert!(round["memory"]["before_bytes"].as_u64().unwrap() > 0);
    assert_eq!(round["lost"], 0);
    assert!(round["silence"].is_null());
    let windows = round["windows"].as_array().unwrap();
    let modes: Vec<_> = windows.iter().map(|window| window["mode"].as_str().unwrap()).collect();
    assert_eq!(modes, ["paced", "closed_loop"]);
    for window in windows {
        assert_eq!(window["probes"], 0);
        assert!(window["cpu_ns_per_heartbeat"].as_f64().unwrap() > 0.0);
        let rtt = &window["rtt_us"];
        let [p50, p99, max] = ["p50", "p99", "max"].map(|q| rtt[q].as_f64().unwrap());
        assert!(0.0 < p50 && p50 <= p99 && p99 <= max, "{rtt}");
    }
    // 200 links at ten heartbeats per second: never more, and at least a fifth of that on a busy
    // machine.
    let paced = windows[0]["heartbeats"].as_u64().unwrap() as f64;
    let most = 2_000.0 * windows[0]["seconds"].as_f64().unwrap() * 1.1;
    assert!((400.0..=most).contains(&paced), "{paced} heartbeats, at most {most}");
}

#[test]
fn a_storm_of_resumptions_loses_nothing() {
    let report = bench("bench-storm", &["--storm", "20", "--links", "300", "--check"]);
    assert_eq!((&report["links"], &report["messages"]), (&300.into(), &20.into()));
    assert_eq!((&report["resumed"], &report["wrong_messages"]), (&300.into(), &0.into()));
    for wave in ["logins", "resumptions"] {
        assert!(report[wave]["seconds"].as_f64().unwrap() > 0.0, "{report}");
        assert!(report[wave]["cpu_us_per_link"].as_f64().unwrap() > 0.0, "{report}");
    }
}

#[test]
fn every_codec_sends_heartbeats_to_the_baseline() {
    for codec in ["native", "message1028", "line"] {
        let args = ["--baseline-only", "--links", "20", "--codec", codec, "--closed-loop"];
        let report = bench(
            "bench-codecs",
            &[&args[..], &["--settle", "10ms", "--window", "200ms"]].concat(),
        );
        let round = &report["rounds"][0];
        let window = &round["windows"][0];
        assert!(window["heartbeats"].as_u64().unwrap() > 20, "{codec}: {window}");
        assert_eq!(round["lost"], 0, "{codec}");
    }
}

#[test]
fn links_over_tls_beat_as_plain_ones_do_beside_a_bare_echo_of_rustls() {
    let load = ["--tls", "--baseline", "--rounds", "1", "--links", "20", "--silent", "0"];
    let pace = ["--paced", "--period", "50ms", "--window", "500ms", "--settle", "100ms"];
    let report = bench("bench-tls", &[&load[..], &pace].concat());
    assert_eq!(report["rounds"].as_array().unwrap().len(), 2);
    for round in report["rounds"].as_array().unwrap() {
        assert!(round["windows"][0]["heartbeats"].as_u64().unwrap() > 20, "{round}");
        assert_eq!(round["lost"], 0, "{round}");
    }
}

#[test]
fn a_burst_of_handshakes_falls_among_the_verdicts() {
    let policy = ["--idle", "300ms", "--interval", "100ms", "--probes", "2", "--handshakes", "30"];
    let load = ["--links", "30", "--silent", "10", "--period", "100ms", "--window", "500ms"];
    let report = bench("bench-burst", &[&policy[..], &load, &["--settle", "100ms"]].concat());
    let silence = &report["rounds"][0]["silence"];
    assert_eq!(silence["found"], 10);
    assert_eq!(silence["false_verdicts"], 0);
    assert_eq!(silence["handshakes"]["links"], 30);
    assert!(silence["handshakes"]["seconds"].as_f64().unwrap() > 0.0);
}

#[test]
fn the_gateway_finds_exactly_the_silent_links() {
    let policy = ["--idle", "300ms", "--interval", "100ms", "--probes", "2"];
    let load = ["--links", "60", "--silent", "20", "--period", "100ms", "--window", "500ms"];
    let report = bench("bench-gateway", &[&policy[..], &load, &["--settle", "100ms"]].concat());
    let round = &report["rounds"][0];
    assert_eq!(round["target"], "gateway");
    assert_eq!(round["clean_stop"], true);
    let silence = &round["silence"];
    assert_eq!(silence["silenced"], 20);
    assert_eq!(silence["found"], 20);
    assert_eq!(silence["false_verdicts"], 0);
    assert_eq!(silence["gateway_ms"]["verdicts"], 20);
}

#[test]
#[cfg(target_os = "linux")]
fn a_bench_that_is_ended_leaves_nothing_behind() {
    let directory = directory("bench-ended");
    let args = ["bench", "--links", "20", "--settle", "1h", "--baseline"];
    let mut bench = Program::start(systole(&directory, &args).env("TMPDIR", &directory));
    let shown = [bench.stderr_line(), bench.stderr_line()].map(Option::unwrap);
    assert_eq!(shown, ["bench: about 362 min in all", "bench: gateway 1/3"]);
    let id = bench.id();
    let children = || {
        let ids = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
        ids.unwrap_or_default().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let command = |id: &String| {
        let line = std::fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default();
        line.split('\0').nth(1).unwrap_or_default().to_owned()
    };
    let files = || std::fs::read_dir(&directory).expect("it exists").count();
    let has = |ids: &[String], name| ids.iter().any(|id| command(id) == name);
    let left = wait("the workers", || {
        let all = children();
        (has(&all, "bench-worker") && files() == 0).then_some(all)
    });
    assert!(has(&left, "bench-gateway"), "{left:?}");
    bench.signal("TERM");
    assert_eq!(bench.end(), -1);
    wait("the end of all processes", || left.iter().all(|id| command(id).is_empty()).then_some(()));
}

#[test]
#[cfg(target_os = "linux")]
fn a_gateway_stopped_by_a_soak_continues_however_the_bench_ends() {
    let policy = ["--idle", "100ms", "--interval", "100ms", "--probes", "1", "--period", "50ms"];
    // The soak must last four times as long as bound, tolerance and stop together.
    let soak = ["--soak", "14s", "--stop", "3s", "--tolerance", "100ms", "--links", "1000"];
    let start = |signal: &'static str| {
        let gateway = Gateway::start(&format!("bench-stop-{signal}"), ONE_SECOND);
        let (address, id) = (gateway.address("native").to_string(), gateway.process().to_string());
        let target = ["bench", "--target", &address, "--pid", &id];
        let args = [&target[..], &policy, &soak].concat();
        let bench =
            Program::start(&mut systole(&directory(&format!("bench-soak-{signal}")), &args));
        (signal, gateway, bench)
    };
    for (signal, gateway, mut bench) in ["TERM", "KILL"].map(start) {
        let path = format!("/proc/{}/stat", gateway.process());
        let is_stopped = || {
            let stat = std::fs::read_to_string(&path).expect("the gateway exists");
            let (_, state) = stat.rsplit_once(')').expect("the name stands in brackets");
            state.trim_start().starts_with('T')
        };
        let shown = [bench.stderr_line(), bench.stderr_line()].map(Option::unwrap);
        assert_eq!(shown, ["bench: about 14 s in all", "bench: soak: connecting"]);
        wait("the stop", || {
            assert!(bench.runs(), "{:?}", bench.stderr_now());
            is_stopped().then_some(())
        });
        bench.signal(signal);
        assert_eq!(bench.end(), -1, "the signal ended it");
        wait("the end of the stop", || (!is_stopped()).then_some(()));
    }
}

#[test]
fn impossible_values_are_wrong_usage() {
    let directory = directory("bench-usage");
    let role_of_beacons = &["--role", "probe", "--codec", "beacon", "--links", "10"];
    let devices = &["--links", "18446744073709551615", "--codec", "beacon"];
    let links = [&["--links", "0"][..], &["--links", "4000000000"], devices];
    let none = [&["--workers", "0"][..], &["--threads", "0"], &["--rounds", "0"]];
    for args in none {
        let shown = snapshot(systole(&directory, &["bench"]).args(args));
        let hint = format!("{} must be at least 1; leave it out to have one chosen", args[0]);
        assert!(shown.starts_with("exit 2\n") && shown.contains(&hint), "{shown}");
    }
    for args in links.into_iter().chain([&["--burn"][..], role_of_beacons]) {
        let output =
            systole(&directory, &["bench"]).args(args).output().expect("the program was built");
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(!output.stderr.is_empty());
    }
}

#[test]
fn absurd_lengths_are_wrong_usage() {
    let directory = directory("bench-lengths");
    let options =
        ["--period", "--warmup", "--window", "--settle", "--idle", "--interval", "--tolerance"];
    let soak = [&["--soak"][..], &["--soak", "10s", "--stop"]];
    let all = options.iter().map(std::slice::from_ref).chain(soak);
    let kinds = [&["--role", "probe"][..], &["--role", "watch"], &["--codec", "beacon"], &[]];
    for option in all {
        let name = option.last().expect("it has a name");
        for length in ["8d", "500000000000d", "18446744073709551615s", "1e300"] {
            let of_kind = kinds.iter().filter(|kind| kind.is_empty() || !name.starts_with("--s"));
            for kind in of_kind {
                let args = [&["bench", "--links", "10"], *kind, option, &[length]].concat();
                let output = systole(&directory, &args).output().expect("the program was built");
                let stderr = String::from_utf8_lossy(&output.stderr);
                assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
                let limit = "too long: at most 7d";
                assert!(stderr.contains(name) && stderr.contains(limit), "{args:?}: {stderr}");
            }
        }
    }
}

#[test]
fn a_thousand_devices_stay_online() {
    let fleet = ["--codec", "beacon", "--links", "1000", "--silent", "100", "--threads", "2"];
    let pace = ["--idle", "500ms", "--interval", "500ms", "--period", "500ms", "--window", "1s"];
    let report = bench("bench-beacon", &[&fleet[..], &pace, &["--settle", "100ms"]].concat());
    assert_eq!(report["online"], 1000);
    assert_eq!(report["shards"], 2);
    assert!(report["most_on_one_socket"].as_u64().unwrap() < 700, "both shards have some");
    assert_eq!((&report["false_verdicts"], &report["found"]), (&0.into(), &100.into()));
    assert!(report["window"]["statements"].as_u64().unwrap() > 1_000);
}

#[test]
fn an_idle_fleet_is_measured_in_both_roles() {
    let load = ["--role", "probe,watch", "--links", "40", "--silent", "10", "--rounds", "1"];
    let pace =
        ["--period", "200ms", "--window", "400ms", "--interval", "300ms", "--settle", "50ms"];
    let reports = bench("bench-roles", &[&load[..], &pace].concat());
    let reports = reports.as_array().expect("one report a role");
    assert_eq!(reports.len(), 2);
    for (report, role) in reports.iter().zip(["probe", "watch"]) {
        assert_eq!(report["role"], role);
        let rounds = report["rounds"].as_array().unwrap();
        let targets: Vec<_> = rounds.iter().map(|one| one["target"].as_str().unwrap()).collect();
        let last = if role == "watch" { "resting_baseline" } else { "bare_prober" };
        assert_eq!(targets, ["gateway", "no_rests", "baseline", last]);
        assert_eq!(report["resting"]["median"].is_number(), role == "watch");
        assert_eq!(report["prober"]["median"].is_number(), role == "probe");
        for round in rounds {
            let window = &round["windows"][0];
            let probed = role == "probe" && round["target"] != "baseline";
            let [beats, probes] = ["heartbeats", "probes"].map(|key| window[key].as_u64().unwrap());
            assert!(beats > 20, "{round}");
            assert_eq!(probes > beats / 2, probed, "{round}");
            let answers_data = round["target"] != "bare_prober";
            for when in ["conversation_us", "after_silence_us"] {
                if !answers_data {
                    assert!(round["talk"].is_null());
                    continue;
                }
                assert!(round["talk"][when]["p50"].as_f64().unwrap() > 0.0, "{round}");
            }
            assert_eq!(round["lost"], 0, "{round}");
        }
        assert_eq!(rounds[0]["silence"]["found"], 10);
        assert_eq!(rounds[0]["silence"]["false_verdicts"], 0);
        assert!(rounds[2]["silence"].is_null());
    }
}
