//! Tests of the configuration: its documents, its overrides, and what is refused.

use super::beacon::DEFAULT_MAX_BEACONS;
use super::*;
use std::fs;

mod logins;
mod resume;
mod tls;

const FILE: &str = include_str!("../../../../systole.toml");
const DOCUMENT: &str = include_str!("../../../../docs/configuration.md");

fn load(text: &str) -> Result<Config, ConfigError> {
    Config::load(text, "systole.toml", &Overrides::default())
}

/// Returns line, column, and text with help, of the first problem of a text that must be refused.
fn refused(text: &str) -> (usize, usize, String) {
    let error = load(text).expect_err(text);
    let problem = &error.problems()[0];
    let (line, column) = problem.place.as_ref().map_or((0, 0), |place| (place.line, place.column));
    let help = problem.help.as_deref().map(|help| format!(" / {help}")).unwrap_or_default();
    (line, column, format!("{}{help}", problem.what))
}

/// Returns every key of the schema. `FILE` has a listener, so its keys are included.
fn known_keys() -> BTreeSet<String> {
    read(FILE, "systole.toml", &Overrides::default()).unwrap().2
}

fn lines_of(prefix: &str) -> impl Iterator<Item = (usize, &'static str)> {
    let lines = FILE.lines().enumerate();
    lines.filter_map(move |(n, line)| Some((n, line.strip_prefix(prefix)?)))
}

fn with_line(n: usize, line: &str) -> String {
    let replace = |(i, old): (usize, &str)| if i == n { line.to_owned() } else { old.to_owned() };
    FILE.lines().enumerate().map(replace).collect::<Vec<_>>().join("\n")
}

fn is_setting(line: &str) -> bool {
    line.starts_with(|c: char| c.is_ascii_lowercase()) && line.contains(" = ")
}

#[test]
fn an_empty_file_gives_the_defaults() {
    assert_eq!(load("").unwrap(), Config::default());
}

#[test]
fn the_example_file_gives_the_defaults() {
    assert_eq!(load(FILE).unwrap(), Config::default());
}

#[test]
fn any_uncommented_line_of_the_example_file_gives_the_defaults() {
    let settings: Vec<_> = lines_of("#").filter(|(_, line)| is_setting(line)).collect();
    assert!(settings.len() >= 20, "{settings:?}");
    for (n, line) in settings {
        assert_eq!(load(&with_line(n, line)).unwrap(), Config::default(), "line {}", n + 1);
    }
}

#[test]
fn the_examples_in_the_file_are_legal_and_differ_from_the_defaults() {
    let examples: Vec<_> = lines_of("#! ").collect();
    assert_eq!(examples.len(), 43, "{examples:?}");
    for (n, line) in examples {
        assert!(is_setting(line), "{line}");
        match load(&with_line(n, line)) {
            Ok(config) => assert_ne!(config, Config::default(), "{line}"),
            // The file does not exist, or the setting needs another, or a beacon listener.
            Err(error) => {
                let tls = ["certificate", "key", "client_roots", "client_identity"];
                let beacon = ["master_secret_file", "keys_file", "max_beacons"];
                // Nor has it a table for tokens, in which most of these stand.
                let tokens = ["plaintext_tokens", "keys", "jwks", "secrets", "issuer", "audience"];
                let more =
                    ["identity_claim", "leeway", "require_expiry", "attributes", "end_at_expiry"];
                let webhook = ["url", "secret_file", "roots", "timeout", "remember_refusals"];
                // Nor are there the tables of webhooks and of the store.
                let told = ["name", "events", "concurrency", "give_up_after"];
                let store = [
                    "path",
                    "sync",
                    "max_rows",
                    "max_rows_per_identity",
                    "max_rows_per_address",
                    "when_full",
                    "required",
                ];
                let all =
                    [&["token_file"][..], &tls, &beacon, &tokens, &more, &webhook, &told, &store];
                let excused = all.concat();
                assert!(excused.iter().any(|key| line.starts_with(key)), "{error}");
            }
        }
    }
}

#[test]
fn every_setting_is_in_the_file_and_in_the_document() {
    let mut section = String::new();
    let mut shown = BTreeSet::new();
    for line in FILE.lines() {
        let line = line.trim_start_matches(['#', '!', ' ']);
        if let Some(name) = line.strip_prefix('[') {
            section = format!("{}.", name.trim_matches(['[', ']']));
            shown.insert(section.trim_end_matches('.').to_owned());
        } else if let Some((key, _)) = line.split_once(" = ") {
            shown.insert(format!("{section}{key}"));
        }
    }
    for key in known_keys() {
        if !key.starts_with("listener.policy.") {
            assert!(shown.contains(&key), "`{key}` is missing in systole.toml");
        }
        let documented = key.replace("listener.policy.", "policy.");
        let row = DOCUMENT.contains(&format!("| `{documented}` |"));
        let table = DOCUMENT.contains(&format!("[{documented}]"));
        assert!(row || table, "`{documented}` is missing in docs/configuration.md");
    }
}

#[test]
fn every_setting_in_the_document_exists() {
    let known = known_keys();
    for line in DOCUMENT.lines() {
        let first = line.strip_prefix("| `").and_then(|rest| rest.split_once("` |"));
        if let Some((key, _)) = first.filter(|(key, _)| !key.starts_with(['-', 'S'])) {
            assert!(known.contains(key), "docs/configuration.md names `{key}`");
        }
    }
}

#[test]
fn unknown_settings_are_refused_with_a_suggestion() {
    let unknown = |text| refused(text);
    assert_eq!(
        unknown("\n[policy]\n  idel = \"15s\""),
        (3, 3, "unknown setting `idel` / did you mean `idle`?".to_owned())
    );
    assert_eq!(
        unknown("[drain]\ncolour = 1"),
        (
            2,
            1,
            "unknown setting `colour` / in [drain] there may be: limit, reconnect_within"
                .to_owned()
        )
    );
    assert_eq!(unknown("[[listener]]\naddress = \"127.0.0.1:0\"\ncodex = 1").0, 3);
    assert_eq!(
        unknown("[listeners]").2,
        "unknown setting `listeners` / did you mean `listener`?".to_owned()
    );
}

#[test]
fn bad_values_are_refused_with_a_correction() {
    let cases = [
        ("shards = 0", 10, "`shards` must be \"auto\" or a number from 1 to 256"),
        ("shards = 257", 10, "`shards` must be \"auto\" or a number from 1 to 256"),
        ("shards = \"4\"", 10, "`shards` must be \"auto\" or a number from 1 to 256"),
        ("enforce = \"no\"", 11, "`enforce` must be true or false, without quotes"),
        ("logic = \"eco\"", 9, "`logic` must be \"echo\" or \"none\""),
        (
            "handshake_timeout = 10",
            21,
            "`handshake_timeout` must be a length of time in quotes with its unit, from \"1ms\" to \
             \"1h\"",
        ),
        ("policy.probes = 0", 17, "`probes` must be a whole number from 1 to 100"),
        (
            "policy = { idle = \"1s\", interval = \"49ms\" }",
            36,
            "`interval` must be a length of time in quotes with its unit, from \"50ms\"",
        ),
        (
            "policy.idle = \"5M\"",
            15,
            "`idle` must be a length of time in quotes with its unit, from \"50ms\" / \"M\" is no \
             unit; there are ms, s, m, h and d: minutes are `m`",
        ),
        (
            "policy.keepalive = \"1w\"",
            20,
            "`keepalive` must be \"off\", or a length of time in quotes with its unit, from \
             \"1ms\" / \"w\" is no unit; there are ms, s, m, h and d: weeks are `7d`",
        ),
        (
            "hung = \"99999999999d\"",
            8,
            "`hung` must be \"end\", or a length of time in quotes with its unit, from \"1s\" to \
             \"1d\" / it is longer than a clock can hold",
        ),
        ("policy = 1", 10, "`policy` must be a table / write [policy] and its settings below"),
        (
            "listener = 1",
            12,
            "`listener` must be a list of tables / write [[listener]] and its settings below, \
             once for each",
        ),
        (
            "admin.address = \"localhost:1\"",
            17,
            "`address` must be an IP address and a port, as in \"127.0.0.1:7400\" or \
             \"[::1]:7400\"",
        ),
        (
            "log.level = \"loud\"",
            13,
            "`level` must be \"error\", \"warn\", \"info\", \"debug\" or \"trace\"",
        ),
        (
            "limits.outbox = \"1kB\"",
            17,
            "`outbox` must be a number of bytes such as 4096 or \"64KiB\", from 4KiB to 1GiB",
        ),
        (
            "limits.max_links = 0",
            20,
            "`max_links` must be \"auto\", or a whole number from 1 to 100000000",
        ),
    ];
    for (text, column, what) in cases {
        let (line, found_column, found) = refused(text);
        assert_eq!((line, found.as_str()), (1, what), "{text}");
        assert_eq!(found_column, column, "{text}");
    }
}

#[test]
fn verdicts_and_shares_of_the_store_have_a_range_and_a_default() {
    let verdicts = "`verdicts` must be a whole number from 1 to 1000000";
    for wrong in ["limits.verdicts = 0", "limits.verdicts = 1000001"] {
        assert_eq!(refused(wrong).2, verdicts);
    }
    assert_eq!(load("limits.verdicts = 7").unwrap().limits.verdicts, 7);
    let store =
        |text: &str| load(&format!("[store]\npath = \"x\"\n{text}")).unwrap().store.unwrap();
    assert_eq!(store("").max_rows_per_identity, 10_000);
    assert_eq!(store("max_rows = 5000").max_rows_per_identity, 50, "a hundredth");
    assert_eq!(store("max_rows_per_identity = 12").max_rows_per_identity, 12);
    let wrong = "[store]\npath = \"x\"\nmax_rows_per_identity = 9";
    assert!(refused(wrong).2.contains("from 10 to 1000000000"), "{}", refused(wrong).2);
}

#[test]
fn contradictions_are_refused() {
    let cases = [
        ("[policy]\npreset = \"relaxed\"\nidle = \"1s\"", "`idle` and `preset = \"relaxed\"` excl"),
        ("[policy]\nnever = true\nprobes = 1", "`probes` and `never = true` exclude"),
        ("[policy]\nnever = true\npreset = \"relaxed\"", "`preset` and `never = true` exclude"),
        (
            "[policy]\nidle = \"12000d\"\ninterval = \"1000d\"",
            "idle + interval × probes must be at most",
        ),
        ("[[listener]]\nname = \"a\"", "this listener has no `address`"),
        ("listener = []", "there is no listener"),
        (
            "[[listener]]\naddress = \"127.0.0.1:1\"\n[[listener]]\naddress = \"127.0.0.1:2\"",
            "a second listener with the name \"native\"",
        ),
        (
            "[[listener]]\naddress = \"127.0.0.1:1\"\n[[listener]]\nname = \"b\"\n\
             address = \"0.0.0.0:1\"\nanonymous = true",
            "a second listener at 0.0.0.0:1",
        ),
        (
            "[[listener]]\naddress = \"0.0.0.0:7480\"\nanonymous = true",
            "the admin interface and a listener cannot share 127.0.0.1:7480",
        ),
        (
            "[[listener]]\naddress = \"[::ffff:127.0.0.1]:1\"",
            "`address` must be an IPv4 address in its own form, \"127.0.0.1:1\"",
        ),
        (
            "[[listener]]\naddress = \"[fe80::1]:1\"",
            "`address` must be an address with its interface, as in \"[fe80::1%eth0]:1\"",
        ),
        (
            "[[listener]]\naddress = \"127.0.0.1:1\"\nshortest_bound = \"6m\"",
            "`shortest_bound` must not be above `longest_bound`",
        ),
        (
            "[[listener]]\naddress = \"127.0.0.1:1\"\ncodec = \"line\"\nshortest_bound = \"6s\"",
            "`shortest_bound` has no effect on a line listener",
        ),
        (
            "[[listener]]\naddress = \"127.0.0.1:1\"\ncodec = \"message1028\"\nmax_data = 1024",
            "`max_data` has no effect on a message1028 listener",
        ),
        ("[limits]\noutbox = \"64KiB\"", "`outbox` must hold two of the largest messages"),
        (
            "[limits]\noutbox = \"1MiB\"\noutbox_total = \"1MiB\"",
            "`outbox_total` must hold two outboxes that are full",
        ),
        ("[admin]\naddress = \"0.0.0.0:7480\"", "the admin interface at 0.0.0.0:7480 can be rea"),
        ("[admin]\ntoken = \"short\"", "`token` must be 16 to 512 printable ASCII characters"),
        ("[admin]\ntoken_file = \"/none/such\"", "the token file /none/such cannot be read"),
        (
            "[policy]\nnever = true\n[[listener]]\naddress = \"127.0.0.1:1\"\npolicy.idle = \"1s\"",
            "`idle`, `interval` and `probes` are needed together here",
        ),
    ];
    for (text, what) in cases {
        let found = refused(text).2;
        assert!(found.starts_with(what), "{text}\n{found}");
    }
}

#[test]
fn all_problems_are_reported_in_the_order_of_the_file() {
    let text = "shards = 0\nenforce = 1\n[policy]\nidel = 1\nprobes = 0\n[lag]\n";
    let error = load(text).unwrap_err();
    let lines = error.problems().iter().map(|p| p.place.as_ref().unwrap().line);
    assert_eq!(lines.collect::<Vec<_>>(), [1, 2, 4, 5, 6]);
    let error = load("shards = \nenforce = = 1\n").unwrap_err();
    assert!(error.problems().len() >= 2, "{error}");
    assert!(error.to_string().starts_with("systole.toml:1:"), "{error}");
}

#[test]
fn no_error_shows_a_secret() {
    for text in [
        "[admin]\ntoken = \"hunter2\"",
        "[admin]\ntoken = \"\"\"\nhunter2\" = \nhunter2",
        "[admin]\ntoken = \"\nhunter2\" = \n",
        "[admin]\ntoken = \"hunter2",
        "admin = { token = \"hunter2\", tocken = 1 }",
        "[admin]\ntokn = \"hunter2hunter2hunter2\"\n",
    ] {
        let error = load(text).unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
    let config = load("[admin]\ntoken = \"hunter2hunter2hunter2\"").unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
    assert!(config.admin.token().unwrap().matches("hunter2hunter2hunter2"));
}

#[test]
fn a_listener_inherits_the_policy_of_the_gateway() {
    let text = "enforce = false\n[policy]\nidle = \"10s\"\nkeepalive = \"9s\"\nspread = false\n\
                [[listener]]\naddress = \"127.0.0.1:0\"\npolicy.probes = 5\n\
                [[listener]]\nname = \"b\"\naddress = \"127.0.0.1:0\"\npolicy.never = true\n\
                [[listener]]\nname = \"c\"\naddress = \"[::]:0\"\nanonymous = true\n\
                policy.preset = \"demanding\"\n";
    let config = load(text).unwrap();
    let [a, b, c] = [0, 1, 2].map(|n| config.listeners[n].policy());
    assert_eq!(config.policy.bound(), Some(Span::from_secs(25)));
    assert_eq!(a.bound(), Some(Span::from_secs(35)));
    assert_eq!((a.keepalive(), a.spread()), (Some(Span::from_secs(9)), false));
    assert_eq!((b.bound(), b.keepalive()), (None, Some(Span::from_secs(9))));
    assert_eq!((c.bound(), c.spread()), (Some(Span::from_secs(8)), true));
    assert!([a, b, c, config.policy].iter().all(|policy| !policy.enforce()));
}

#[test]
fn beacon_listeners_need_one_keys_file_and_no_stream_settings() {
    let name = format!("systole-keys-{}", std::process::id());
    let directory = std::env::temp_dir().join(name);
    fs::create_dir_all(&directory).unwrap();
    let path = directory.join("systole.toml").display().to_string();
    fs::write(directory.join("secret"), "5e".repeat(32) + "\n").unwrap();
    fs::write(directory.join("keys"), format!("00000000000000d1 {}\n", "7a".repeat(32))).unwrap();
    fs::write(directory.join("bad"), "secret sauce").unwrap();
    let load = |lines: &str| {
        let head = "[[listener]]\ncodec = \"beacon\"\naddress = \"127.0.0.1:7400\"\n";
        let other = "\n[[listener]]\naddress = \"127.0.0.1:7400\"";
        Config::load(&format!("{head}{lines}{other}"), &path, &Overrides::default())
    };
    let config = load("master_secret_file = \"secret\"\npolicy.preset = \"demanding\"").unwrap();
    assert_eq!(config.listeners.len(), 1, "one port of each transport");
    let [beacon] = &config.beacons[..] else { panic!("{config:?}") };
    assert_eq!((beacon.name(), beacon.max_beacons()), ("beacon", DEFAULT_MAX_BEACONS));
    assert_eq!(beacon.policy().bound(), Some(Span::from_secs(8)));
    let listed = load("keys_file = \"keys\"\nmax_beacons = 7").unwrap();
    assert!(listed.beacons[0].keys().of(0xd1).is_some());
    assert!(listed.beacons[0].keys().of(0xd2).is_none());
    assert_ne!(listed.beacons, config.beacons);
    for (lines, problem) in [
        ("", "a beacon listener needs the keys of its devices"),
        ("keys_file = \"keys\"\nmaster_secret_file = \"secret\"", "exclude each other"),
        ("keys_file = \"none\"", "none cannot be read"),
        ("keys_file = \"bad\"", "line 1 must be a device of 16 hexadecimal digits"),
        ("master_secret_file = \"bad\"", "first line must be 64 hexadecimal digits"),
        ("master_secret_file = \"secret\"\nrole = \"watch\"", "`role` has no effect"),
        ("master_secret_file = \"secret\"\nmax_data = 7", "`max_data` has no effect"),
        ("master_secret_file = \"secret\"\nlongest_bound = \"7s\"", "`longest_bound` has no"),
        ("master_secret_file = \"secret\"\nname = \"native\"", "with the name \"native\""),
        ("master_secret_file = \"secret\"\nmax_beacons = 0", "from 1 to 16777216"),
    ] {
        let error = load(lines).unwrap_err().to_string();
        assert!(error.contains(problem), "{lines}: {error}");
        assert!(!error.contains("sauce"), "{error}");
    }
    let misplaced = "[[listener]]\naddress = \"127.0.0.1:0\"\nkeys_file = \"keys\"";
    assert_eq!(
        refused(misplaced).2.split(" / ").next(),
        Some("`keys_file` belongs to beacon listeners")
    );
    fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn the_number_of_listeners_is_bounded() {
    let listeners = |count: usize| -> String {
        let one = |n| format!("[[listener]]\nname = \"n{n}\"\naddress = \"127.0.0.1:0\"\n");
        (0..count).map(one).collect()
    };
    assert_eq!(load(&listeners(MAX_LISTENERS)).unwrap().listeners.len(), MAX_LISTENERS);
    let (line, _, what) = refused(&listeners(MAX_LISTENERS + 1));
    assert_eq!((line, what.as_str()), (MAX_LISTENERS * 3 + 1, "more than 64 listeners"));
    assert!(load(&"#".repeat(MAX_FILE)).is_ok());
    assert!(load(&"#".repeat(MAX_FILE + 1)).is_err());
}

#[test]
fn overrides_replace_settings_of_the_file() {
    let listen = |text: &str| text.parse::<ListenAt>();
    let overrides = Overrides {
        listen: ["[::1]:1", "line=127.0.0.1:0", "native=127.0.0.1:2"]
            .map(|text| listen(text).unwrap())
            .to_vec(),
        admin: Some("0.0.0.0:1".parse().unwrap()),
        admin_token: Some(Token::new("0123456789abcdef").unwrap()),
        shards: Some("3".parse().unwrap()),
        enforce: Some(false),
        log_level: Some(Level::Debug),
        log_format: Some(Format::Json),
        log_heartbeats: Some(true),
        ..Overrides::default()
    };
    let config = Config::load(FILE, "systole.toml", &overrides).unwrap();
    let names: Vec<_> = config.listeners.iter().map(Listener::name).collect();
    assert_eq!(names, ["native", "line", "native-2"]);
    assert!(config.listeners.iter().all(|listener| !listener.policy().enforce()));
    assert_eq!(config.admin.address(), "0.0.0.0:1".parse().unwrap());
    assert_eq!(config.shards.to_string(), "3");
    let log = Log { level: Level::Debug, format: Format::Json, heartbeats: true };
    assert_eq!(config.log, log);
    assert!(listen("quic=127.0.0.1:1").unwrap_err().contains("\"native\""));
    assert!(listen("localhost").is_err());

    let open = Overrides { admin: overrides.admin, ..Overrides::default() };
    let error = Config::load("", "systole.toml", &open).unwrap_err();
    assert_eq!(error.problems()[0].place, None, "{error}");
}

/// Damages the example file at many places, with characters that have been trouble before.
#[test]
fn any_damage_is_reported_in_short_and_harmless_lines() {
    let settings = FILE.replace("\n#", "\n").replace("\n!", "\n");
    let long = |part: &str| part.repeat(70_000 / part.len());
    let parts = [
        "\u{1b}[2J".to_owned(),
        "\u{202e}".to_owned(),
        "\u{0}\t日🫀\r".to_owned(),
        long("x"),
        long("日\t"),
        long("1, "),
        format!("\"{}\"", long("\\u001b")),
        long("["),
        long("="),
    ];
    for (n, part) in parts.iter().enumerate() {
        for at in (n..settings.len()).step_by(389).filter(|at| settings.is_char_boundary(*at)) {
            let text = format!("{}{part}{}", &settings[..at], &settings[at..]);
            let Err(error) = load(&text) else { continue };
            let shown = error.to_string();
            assert!(shown.len() < 100_000, "{} bytes at {at} of part {n}", shown.len());
            let harmless = |c: char| c == '\n' || !c.is_control() && c != '\u{202e}';
            assert!(shown.chars().all(harmless), "{shown:?}");
            assert!(shown.lines().all(|line| line.chars().count() < 700), "{shown}");
        }
    }
}

#[test]
fn only_a_certificate_that_is_verified_proves_an_identity() {
    let text = "[[listener]]\naddress = \"127.0.0.1:9\"\nclient_identity = \"subject\"";
    let error = load(text).unwrap_err().to_string();
    assert!(error.contains("`client_identity` = \"subject\" needs `client_roots`"), "{error}");
    assert!(load(&text.replace("subject", "claim")).is_ok());
}
