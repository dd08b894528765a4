//! The threads that verify tokens, beside the shards.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Builder;

use systole_core::{Span, Time};
use systole_net::Clock;

use super::fair::{self, Entrance, Exit, Ticket};
use super::refusal::Refusal;
use super::rules::{Tokens, Verified};
use super::webhook::Webhook;
use crate::request::{Request, Requests};

/// Maximum number of tokens that wait to be verified, for keys and for webhooks each: those of some
/// tenths of a second, and a mebibyte. A login that finds no room is refused, and its peer asked to
/// come back.
const JOBS: usize = 1_024;

/// Threads that ask webhooks, each one question at a time: a service that answers in 20 ms is asked
/// 800 times a second.
const WEBHOOK_THREADS: usize = 16;

/// The longest time for which a token waits until its webhook is asked. A login that waits longer
/// is refused, since its peer has little patience left, and asked to come back.
const LONGEST_WAIT: Span = Span::from_secs(4);

/// Who verifies the tokens of a listener.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verifier {
    /// The gateway, by keys.
    Tokens(Tokens),
    /// A service.
    Webhook(Webhook),
}

/// A token to be verified. Not printable: whoever has a token has the identity.
pub struct Job {
    /// The shard that asks.
    pub shard: usize,
    /// Its link.
    pub link: u32,
    /// The number of the admission.
    pub admission: u32,
    /// When the peer's part of the handshake was complete; see [`systole_core::hub::Login`].
    pub heard_at: Span,
    /// The peer's address.
    pub address: IpAddr,
    /// When the peer asked, on the shard's clock.
    pub asked: Time,
    /// Who verifies it.
    pub verifier: Verifier,
    /// The token.
    pub token: Box<[u8]>,
}

/// What became of a token.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The link of the shard that asked.
    pub link: u32,
    /// The number of the admission.
    pub admission: u32,
    /// When the peer's part of the handshake was complete; see [`systole_core::hub::Login`].
    pub heard_at: Span,
    /// The peer's address.
    pub address: IpAddr,
    /// When the peer asked, on the shard's clock.
    pub asked: Time,
    /// What the token proves, or why it proves nothing.
    pub result: Result<Verified, Refusal>,
}

/// The sending ends of the queues of tokens.
#[derive(Clone, Debug)]
pub struct Jobs {
    keys: SyncSender<Job>,
    webhooks: Entrance<Job>,
}

/// The receiving ends of the queues of tokens.
#[derive(Debug)]
pub struct Pool {
    keys: Receiver<Job>,
    webhooks: Exit<Job>,
}

/// Makes the queues of tokens: two, so that no signature waits for a service.
pub fn jobs() -> (Jobs, Pool) {
    let (keys, keys_out) = sync_channel(JOBS);
    let (webhooks, webhooks_out) = fair::queue(JOBS, WEBHOOK_THREADS);
    (Jobs { keys, webhooks }, Pool { keys: keys_out, webhooks: webhooks_out })
}

impl Jobs {
    /// Queues a token, or refuses it if the queue, or the share of its address in it, is full. What
    /// waits for a webhook can be withdrawn.
    pub(crate) fn send(&self, job: Job) -> Result<Option<Ticket>, Refusal> {
        match job.verifier {
            Verifier::Tokens(_) => {
                self.keys.try_send(job).map_or(Err(Refusal::Full), |()| Ok(None))
            }
            Verifier::Webhook(_) => {
                self.webhooks.push(job.address, job).map(Some).ok_or(Refusal::Full)
            }
        }
    }

    /// Withdraws a token about which no webhook was asked yet: then no answer comes. Returns
    /// whether it still waited.
    pub(crate) fn withdraw(&self, ticket: Ticket) -> bool {
        self.webhooks.withdraw(ticket).is_some()
    }
}

impl Pool {
    /// Verifies tokens on threads of their own until all shards have ended. `shards` are in the
    /// order of their numbers. The threads for webhooks start only if some listener has one.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub(crate) fn start(
        self,
        shards: Vec<Requests>,
        clock: Clock,
        has_webhooks: bool,
    ) -> io::Result<()> {
        let shards = Arc::new(shards);
        let keys = self.keys;
        let answering = shards.clone();
        let verify_all = move || {
            while let Ok(job) = keys.recv() {
                job.verify_and_send(&answering, clock);
            }
        };
        // The threads end with the last shard.
        drop(Builder::new().name("identity".to_owned()).spawn(verify_all)?);
        let webhooks = Arc::new(self.webhooks);
        for _ in 0..if has_webhooks { WEBHOOK_THREADS } else { 0 } {
            let (webhooks, shards) = (webhooks.clone(), shards.clone());
            let ask_all = move || {
                while let Some((job, _turn)) = webhooks.take() {
                    job.verify_and_send(&shards, clock);
                }
            };
            drop(Builder::new().name("webhook".to_owned()).spawn(ask_all)?);
        }
        Ok(())
    }

    /// Takes the next token, for a test that answers itself.
    #[cfg(test)]
    pub(crate) fn next(&self) -> Option<Job> {
        let webhook = || self.webhooks.try_take().map(|(job, _)| job);
        self.keys.try_recv().ok().or_else(webhook)
    }
}

impl Job {
    /// Verifies the token and answers the shard that asked.
    fn verify_and_send(self, shards: &[Requests], clock: Clock) {
        let shard = self.shard;
        let answer = self.verify(clock.wall_ms(), clock.monotonic());
        if let Some(shard) = shards.get(shard) {
            // A shard that has ended has no logins.
            let _ = shard.send_and_wait(Request::LoggedIn(answer));
        }
    }

    /// Verifies the token at a time in milliseconds since 1970-01-01 UTC, and on the monotonic
    /// clock.
    fn verify(self, now_ms: u64, now: Span) -> Answer {
        let result = match &self.verifier {
            Verifier::Tokens(tokens) => tokens.rules().verify(&self.token, now_ms),
            Verifier::Webhook(_) if now.less(self.heard_at) > LONGEST_WAIT => Err(Refusal::Full),
            Verifier::Webhook(webhook) => webhook.ask(&self.token, self.address, now),
        };
        self.answer(result)
    }

    /// Answers the login.
    pub(crate) fn answer(self, result: Result<Verified, Refusal>) -> Answer {
        let Job { link, admission, heard_at, address, asked, .. } = self;
        Answer { link, admission, heard_at, address, asked, result }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;
    use crate::identity::{Keys, Rules, WebhookSettings};
    use crate::wake::wake_ups;

    #[test]
    fn a_webhook_is_not_asked_about_a_token_that_has_waited_for_long() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let webhook = Webhook::new(WebhookSettings {
            listener: "native".to_owned(),
            url: format!("http://{closed}/"),
            secret: String::new(),
            timeout: Span::from_secs(5),
            remember: Span::ZERO,
            roots: Vec::new(),
        });
        let since = Span::from_secs(7);
        let job = || Job {
            shard: 0,
            link: 1,
            admission: 2,
            heard_at: since,
            address: Ipv4Addr::LOCALHOST.into(),
            asked: Time::ZERO,
            verifier: Verifier::Webhook(webhook.clone()),
            token: Box::from(*b"token"),
        };
        let result = |waited: Span| job().verify(0, since + waited).result;
        assert_eq!(result(LONGEST_WAIT), Err(Refusal::WebhookFailed), "nobody listens there");
        assert_eq!(result(LONGEST_WAIT + Span::from_nanos(1)), Err(Refusal::Full));
    }

    #[test]
    fn each_kind_of_verifier_has_a_queue_of_its_own_and_a_full_one_refuses() {
        let (jobs, pool) = jobs();
        let job = |verifier| Job {
            shard: 0,
            link: 1,
            admission: 2,
            heard_at: Span::ZERO,
            address: Ipv4Addr::LOCALHOST.into(),
            asked: Time::ZERO,
            verifier,
            token: Box::from(*b"token"),
        };
        let tokens = Verifier::Tokens(Tokens::new(Rules::of_keys(Keys::default())));
        let webhook = Verifier::Webhook(Webhook::new(WebhookSettings {
            listener: "native".to_owned(),
            url: "http://127.0.0.1:1/".to_owned(),
            secret: String::new(),
            timeout: Span::from_secs(5),
            remember: Span::ZERO,
            roots: Vec::new(),
        }));
        for _ in 0..JOBS / 2 {
            assert!(jobs.send(job(webhook.clone())).is_ok());
        }
        assert_eq!(jobs.send(job(webhook.clone())), Err(Refusal::Full), "the share of one address");
        let other = Job { address: Ipv4Addr::new(192, 0, 2, 1).into(), ..job(webhook) };
        assert!(jobs.send(other).is_ok(), "another address has its own");
        assert!(jobs.send(job(tokens)).is_ok(), "keys do not wait for webhooks");
        drop(pool);
    }

    /// Serves a webhook that reports each question about a token "hang" and never answers it.
    fn serve(listener: TcpListener) -> Receiver<TcpStream> {
        let (hanging, hangs) = sync_channel(JOBS);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, hanging) = (stream.unwrap(), hanging.clone());
                std::thread::spawn(move || {
                    let mut question = String::new();
                    while !question.contains("\"token\":\"") {
                        let mut bytes = [0; 1_024];
                        let read = stream.read(&mut bytes).unwrap();
                        assert_ne!(read, 0);
                        question += str::from_utf8(&bytes[..read]).unwrap();
                    }
                    if question.contains("hang") {
                        return hanging.send(stream).unwrap();
                    }
                    let body = r#"{"identity": "ada"}"#;
                    let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length";
                    write!(stream, "{head}: {}\r\n\r\n{body}", body.len()).unwrap();
                });
            }
        });
        hangs
    }

    #[test]
    fn an_address_whose_tokens_hang_does_not_make_another_wait() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let webhook = Verifier::Webhook(Webhook::new(WebhookSettings {
            listener: "native".to_owned(),
            url: format!("http://{}/", listener.local_addr().unwrap()),
            secret: String::new(),
            timeout: Span::from_secs(60),
            remember: Span::ZERO,
            roots: Vec::new(),
        }));
        let hangs = serve(listener);
        let clock = Clock::start();
        let job = |last, token: &[u8]| Job {
            shard: 0,
            link: last,
            admission: 2,
            heard_at: clock.monotonic(),
            address: Ipv4Addr::new(192, 0, 2, last as u8).into(),
            asked: Time::ZERO,
            verifier: webhook.clone(),
            token: Box::from(token),
        };
        let poll = mio::Poll::new().unwrap();
        let (waker, _wake_ups) = wake_ups(poll.registry(), mio::Token(0)).unwrap();
        let (sender, answers) = sync_channel(JOBS);
        let (jobs, pool) = jobs();
        pool.start(vec![Requests::new(sender, waker)], clock, true).unwrap();
        for _ in 0..1_000 {
            // What is beyond the share is refused.
            let _ = jobs.send(job(1, b"hang"));
        }
        let soon = Duration::from_secs(20);
        let hanging: Vec<_> =
            (0..WEBHOOK_THREADS / 2).map(|_| hangs.recv_timeout(soon).unwrap()).collect();
        assert!(jobs.send(job(2, b"good")).is_ok());
        let Ok(Request::LoggedIn(answer)) = answers.recv_timeout(soon) else {
            panic!("the other address has no answer");
        };
        assert_eq!((answer.link, answer.result.is_ok()), (2, true));
        drop(hanging);
    }
}
