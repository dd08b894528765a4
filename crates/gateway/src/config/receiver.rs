//! Reads `[[webhook]]`: who is told about sessions.

use std::path::Path;

use systole_core::Span;
use systole_net::tls::system_certificates;
use toml::de::DeValue;

use super::section::{Given, Reading, Section};
use super::webhook::{read_roots, read_secret};
use super::{tokens, value};
use crate::events::Body;
use crate::webhooks::{Receiver, check_url};

/// Maximum number of receivers: each event is written once for each.
const MAX_RECEIVERS: usize = 16;

/// Shortest secret in bytes, as for the admin interface.
const SHORTEST_SECRET: usize = 16;

/// Default time limit of an attempt: a receiver may have a database behind it.
const DEFAULT_TIMEOUT: Span = Span::from_secs(5);

/// Default number of events under way to a receiver at once.
const DEFAULT_CONCURRENCY: u64 = 8;

/// Default time after which an event goes to the dead letters: somebody has noticed by then.
const DEFAULT_GIVE_UP: Span = Span::from_secs(86_400);

/// What a receiver gets by default: what it needs to know who is there, and to clean up.
const DEFAULT_EVENTS: [&str; 2] = ["join", "leave"];

/// Reads all `[[webhook]]`.
pub(super) fn read_all(
    reading: &mut Reading<'_>,
    root: &mut Section<'_>,
    directory: &Path,
) -> Vec<Receiver> {
    let Some(sections) = root.sections(reading, "webhook") else {
        // Its keys are part of the schema all the same.
        let absent = root.section(reading, "webhook");
        read(reading, absent, directory, 0);
        return Vec::new();
    };
    let mut receivers: Vec<Receiver> = Vec::new();
    for (number, section) in sections.into_iter().enumerate() {
        let place = section.span();
        let Some(receiver) = read(reading, section, directory, number) else {
            continue;
        };
        if number >= MAX_RECEIVERS {
            let what = format!("more than {MAX_RECEIVERS} webhooks");
            reading.problems.add(place, what, None);
            break;
        }
        if receivers.iter().any(|other| other.name == receiver.name) {
            let what = format!("a second webhook with the name \"{}\"", receiver.name);
            let help = "give each its own `name`: what waits for it is kept under that name";
            reading.problems.add(place, what, Some(help.to_owned()));
        }
        receivers.push(receiver);
    }
    receivers
}

/// Reads one `[[webhook]]`; `None` if it is absent or was refused.
fn read(
    reading: &mut Reading<'_>,
    mut section: Section<'_>,
    directory: &Path,
    number: usize,
) -> Option<Receiver> {
    let place = section.span();
    let name = section.take(reading, "name", name);
    let url = section.take(reading, "url", |value| value::text(value).and_then(check_url));
    let secret_file = section.take(reading, "secret_file", value::text);
    let events = section.take(reading, "events", kinds);
    let timeouts = Span::from_millis(10)..=Span::from_secs(60);
    let timeout = section.take(reading, "timeout", value::span(timeouts));
    let concurrency = section.take(reading, "concurrency", value::integer(1..=64));
    let limits = Span::from_secs(1)..=Span::from_secs(30 * 86_400);
    let give_up_after = section.take(reading, "give_up_after", value::span(limits));
    let roots_file = section.take(reading, "roots", value::text);
    let (has_url, has_secret) = (section.has("url"), section.has("secret_file"));
    section.finish(reading);
    place.as_ref()?;
    if !has_url {
        let help = "say who is told, as in url = \"https://game.example.com/systole\"".to_owned();
        reading.problems.add(place.clone(), "[[webhook]] has no `url`".to_owned(), Some(help));
    }
    if !has_secret {
        let what = "[[webhook]] has no `secret_file`".to_owned();
        let help = "name a file whose first line is the key of the signatures, \
                    as from `openssl rand -hex 32`";
        reading.problems.add(place, what, Some(help.to_owned()));
    }
    let (Given { value: url, .. }, secret_file) = (url?, secret_file?);
    let secret = read_secret(reading, &secret_file, directory)?;
    if secret.len() < SHORTEST_SECRET {
        let what =
            format!("the secret of a webhook must have {SHORTEST_SECRET} characters or more");
        let help = "make one with `openssl rand -hex 32`".to_owned();
        reading.problems.add(Some(secret_file.span), what, Some(help));
    }
    let roots = match &roots_file {
        None if url.starts_with("https://") => system_certificates(),
        None => Vec::new(),
        Some(file) => read_roots(reading, file, directory)?,
    };
    let default_name =
        if number == 0 { "webhook".to_owned() } else { format!("webhook-{}", number + 1) };
    Some(Receiver {
        name: Given::or(name, default_name),
        url,
        secret,
        events: Given::or(events, DEFAULT_EVENTS.to_vec()),
        timeout: Given::or(timeout, DEFAULT_TIMEOUT),
        concurrency: usize::try_from(Given::or(concurrency, DEFAULT_CONCURRENCY)).unwrap_or(1),
        give_up_after: Given::or(give_up_after, DEFAULT_GIVE_UP),
        roots: roots.iter().map(|root| root.to_vec()).collect(),
    })
}

/// Reads a name, which becomes part of the name of a file.
fn name(value: &DeValue<'_>) -> Result<String, String> {
    let is_legal = |name: &String| {
        let mut bytes = name.bytes();
        (1..=32).contains(&name.len())
            && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let name = value::text(value).ok().filter(is_legal);
    name.ok_or_else(|| "1 to 32 letters, digits, - and _, in quotes".to_owned())
}

/// Reads the kinds of events of a session.
fn kinds(value: &DeValue<'_>) -> Result<Vec<&'static str>, String> {
    let known = |text: &String| Body::OF_SESSIONS.into_iter().find(|kind| kind == text);
    let wanted = tokens::texts(value).ok();
    let kinds: Option<Vec<_>> = wanted.and_then(|texts| texts.iter().map(known).collect());
    let mut kinds = kinds.ok_or_else(|| {
        format!("one or a list of these, in quotes: {}", Body::OF_SESSIONS.join(", "))
    })?;
    kinds.sort_unstable();
    kinds.dedup();
    Ok(kinds)
}
