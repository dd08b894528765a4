//! Messages from outside: from the admin interface to clients.

use serde_json::Value;
use systole_core::hub::{self, Unsendable};
use systole_core::link::{self, Command};
use systole_core::wire::DataKind;

use super::opening::Accept;
use super::shard_loop::ShardLoop;
use super::streams::Streams;
use crate::report::attributes_of;
use crate::request::{Delivered, SENDS_PER_REQUEST, SLOTS_PER_SEARCH, Target};

/// How many bytes of attributes are parsed for one request, at about 16 bytes a microsecond: the
/// next request of a broadcast goes on from there.
const PARSED_PER_REQUEST: usize = 4 << 10;

/// An attribute that sessions must have.
#[derive(Debug)]
struct Wanted<'a> {
    name: &'a str,
    value: &'a Value,
    /// How it stands in the attributes of a session, which are JSON without white space.
    text: String,
    /// How many bytes of attributes were parsed.
    parsed: usize,
}

impl<'a> Wanted<'a> {
    fn new((name, value): &'a (String, Value)) -> Wanted<'a> {
        let text = format!("{}:{value}", Value::from(name.as_str()));
        Wanted { name, value, text, parsed: 0 }
    }

    /// Returns whether the attributes of a session have it. Only where it stands somewhere in them
    /// are they parsed: it may belong to something within them.
    fn is_among(&mut self, attributes: &str) -> bool {
        if !attributes.contains(&self.text) {
            return false;
        }
        self.parsed += attributes.len();
        attributes_of(attributes).get(self.name) == Some(self.value)
    }
}

impl<T: Accept> ShardLoop<Streams<T>> {
    pub(super) fn deliver(&mut self, to: Target, message: &[u8]) -> Delivered {
        let hub = self.hub.machine();
        let (mut next, mut away) = (None, Vec::new());
        let links: Vec<u32> = match to {
            Target::Session(session) => {
                let link = hub.find(session);
                away.extend(link.is_none().then_some(session));
                link.into_iter().collect()
            }
            Target::Identity(identity) => {
                away = hub.absent_sessions_of(&identity);
                hub.links_of(&identity)
            }
            Target::All { from, listener, attribute } => {
                let mut found = Vec::new();
                let mut wanted = attribute.as_deref().map(Wanted::new);
                let mut presences = hub.presences(from, SLOTS_PER_SEARCH);
                while found.len() < SENDS_PER_REQUEST
                    && wanted.as_ref().is_none_or(|wanted| wanted.parsed < PARSED_PER_REQUEST)
                    && let Some(known) = presences.next()
                {
                    let is_there = listener.is_none_or(|listener| listener == known.listener);
                    let mut has =
                        || wanted.as_mut().is_none_or(|wanted| wanted.is_among(known.attributes));
                    if is_there && has() {
                        found.push(known.link);
                    }
                }
                next = presences.cursor();
                found
            }
        };
        let mut delivered = Delivered { next, ..Delivered::default() };
        for link in links {
            let sent = self.send_from_outside(link, message);
            delivered.queued += delivered.count(sent);
        }
        for session in away {
            let kept = self.keep_from_outside(session, message);
            delivered.away += delivered.count(kept);
        }
        delivered
    }

    /// Keeps a message for a session that is away. Without room in its window it is not kept, and
    /// the rule of the listener says what becomes of the session.
    fn keep_from_outside(&mut self, session: u64, message: &[u8]) -> Result<(), Unsendable> {
        let before = self.hub.machine().can_keep(session, message)?;
        let command = Command::Send { bytes: message, more: false, kind: DataKind::Eleven };
        self.hub.handle(self.clock.now(), hub::World::Session { session, command });
        self.carry_out();
        let is_kept = self.hub.machine().can_keep(session, message).is_ok_and(|now| now > before);
        if is_kept { Ok(()) } else { Err(Unsendable::Busy) }
    }

    /// Sends a message on a link. Whoever sends from outside does not see what waits for the peer,
    /// so nobody must end as a slow consumer for it: there must be room. Where the window has none,
    /// the peer is asked to acknowledge.
    fn send_from_outside(&mut self, link: u32, message: &[u8]) -> Result<(), Unsendable> {
        let command = match self.hub.machine().can_send(link, message) {
            Ok(()) if self.traffic.sockets.has_room_for(link, message.len()) => {
                Command::Send { bytes: message, more: false, kind: DataKind::Eleven }
            }
            // It may be tried again, which has a chance once the peer has acknowledged what it got.
            // By itself it does so only with half of its window, or with a heartbeat.
            Err(Unsendable::Busy) if self.traffic.sockets.has_room_for(link, 0) => Command::Flush,
            Ok(()) | Err(Unsendable::Busy) => return Err(Unsendable::Busy),
            Err(unsendable) => return Err(unsendable),
        };
        let is_sent = matches!(command, Command::Send { .. });
        let input = link::World::Command(command);
        self.hub.handle(self.clock.now(), hub::World::Link { link, input });
        self.carry_out();
        if is_sent { Ok(()) } else { Err(Unsendable::Busy) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_attribute_is_found_where_parsing_all_would_find_it() {
        let texts = [
            json!({}),
            json!({"role": "pilot"}),
            json!({"role": "pilot", "team": 7}),
            json!({"inner": {"role": "pilot"}}),
            json!({"inner": {"role": "pilot"}, "role": "cook"}),
            json!({"role": "\"pilot\"", "x\"role": "pilot"}),
            json!({"text": "\"role\":\"pilot\""}),
            json!({"role": 1, "n": 1.0, "big": u64::MAX, "none": null}),
            json!({"list": ["pilot", {"a": 1}]}),
            json!({"role": {"b": 2, "a": 1}, "name\n": "b\u{fc}cher"}),
        ];
        let names = ["role", "team", "n", "big", "none", "list", "x\"role", "name\n", "inner"];
        let values = [
            json!("pilot"),
            json!("\"pilot\""),
            json!("b\u{fc}cher"),
            json!(7),
            json!(1),
            json!(1.0),
            json!(u64::MAX),
            json!(null),
            json!(["pilot", {"a": 1}]),
            json!({"a": 1, "b": 2}),
            json!({"role": "pilot"}),
        ];
        let mut found = 0;
        for (text, name, value) in texts.iter().flat_map(|text| {
            let values = &values;
            names.iter().flat_map(move |name| values.iter().map(move |value| (text, *name, value)))
        }) {
            let attribute = (name.to_owned(), value.clone());
            let mut wanted = Wanted::new(&attribute);
            let expected = text.get(name) == Some(value);
            assert_eq!(wanted.is_among(&text.to_string()), expected, "{name}={value} in {text}");
            found += u64::from(expected);
        }
        assert_eq!(found, 14, "the texts have some of them");
        let attribute = ("role".to_owned(), json!("pilot"));
        let mut wanted = Wanted::new(&attribute);
        assert!(!wanted.is_among("") && wanted.parsed == 0);
        assert!(!wanted.is_among("{\"role\":\"cook\"}") && wanted.parsed == 0, "none is parsed");
    }
}
