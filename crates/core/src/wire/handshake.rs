//! HELLO and WELCOME: the identities of both ends and the agreed policy.

use alloc::vec::Vec;
use core::fmt;

use super::fields::{self, Fields};
use super::{Account, MAX_DATA, MAX_IDENTITY, MAX_RESUME_TOKEN, MAX_TOKEN, Malformed};
use crate::policy::Policy;
use crate::resume::NotResumed;
use crate::window::Limits;

const MAGIC: [u8; 4] = *b"SYS1";
const VERSION: u8 = 1;
const HELLO_ASKS: u8 = 0x01;
const HELLO_RESUMES: u8 = 0x02;
const HELLO_ACCOUNTS: u8 = 0x04;
const WELCOME_RESUMED: u8 = 0x01;
const WELCOME_NOT_RESUMED: u8 = 0x02;

/// The capability bit of an end that keeps windows: see [`window`](crate::window).
pub const WINDOWS: u32 = 0x0000_0001;

/// The length of the HELLO body up to its first varint.
const HELLO_FIXED: usize = 4 + 1 + 1 + 4 + 16 + 16 + 8 + 8 + 8 + fields::POLICY + Account::SIZE;
/// The length of the WELCOME body up to its first varint.
const WELCOME_FIXED: usize = 1 + 1 + 4 + 16 + 16 + 8 + 8 + 8 + 8 + 4 + 4 + fields::POLICY;

/// An id that changes when the machine restarts; zeros, the default, mean unknown.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BootId(pub [u8; 16]);

crate::plain::plain_struct! { BootId { 0: bytes } }

/// An id that changes when the process restarts; zeros, the default, mean unknown.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct InstanceId(pub [u8; 16]);

crate::plain::plain_struct! { InstanceId { 0: bytes } }

/// The content of HELLO, the client's first frame.
///
/// The default asks for nothing, and claims no identity.
///
/// `Debug` shows the length of the tokens, never their bytes: secrets must not reach a log.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Hello<'a> {
    /// The policy that the client requests. `spread` and `keepalive` are not sent: each end has its
    /// own, and a decoded policy has the constructor's defaults.
    pub asks: Option<Policy>,
    /// The session that the client wants to resume.
    pub resume: Option<Resume<'a>>,
    /// The account of the previous link, if this process had one.
    pub account: Option<Account>,
    /// Capability bits: [`WINDOWS`]; others are 0 when sent, and ignored when received.
    pub capabilities: u32,
    /// The boot id of the client's machine.
    pub boot_id: BootId,
    /// The instance id of the client's process.
    pub instance_id: InstanceId,
    /// The identity that the client claims; at most [`MAX_IDENTITY`] bytes without control
    /// characters, may be empty.
    pub identity: &'a str,
    /// The proof of the identity; at most [`MAX_TOKEN`] bytes, may be empty.
    pub token: &'a [u8],
}

/// A client's request to resume a session.
///
/// `Debug` shows the length of the token, never its bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Resume<'a> {
    /// The session's number.
    pub session: u64,
    /// The session's epoch.
    pub epoch: u64,
    /// The number of whole messages that the client has received in the session.
    pub received: u64,
    /// The resume token from WELCOME; at most [`MAX_RESUME_TOKEN`] bytes.
    pub token: &'a [u8],
}

/// The content of WELCOME, with which the gateway accepts a client.
///
/// `Debug` shows the length of the resume token, never its bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Welcome<'a> {
    /// What became of the session that HELLO asked to resume.
    pub resumption: Resumption,
    /// How much either end may send that is not acknowledged; `None` if the session has no windows.
    pub windows: Option<Limits>,
    /// The boot id of the gateway's machine.
    pub boot_id: BootId,
    /// The instance id of the gateway's process.
    pub instance_id: InstanceId,
    /// The session's number.
    pub session: u64,
    /// The session's epoch, higher than that of any earlier session of the same identity.
    pub epoch: u64,
    /// The number of whole messages that the gateway has received in the session.
    pub received: u64,
    /// The gateway's wall clock in milliseconds since 1970-01-01 UTC, for display only.
    pub server_time_ms: u64,
    /// The time for which the session outlives its link, in milliseconds; 0 for not at all.
    pub resume_window_ms: u32,
    /// The maximum DATA body that the gateway accepts, 1 to [`MAX_DATA`] bytes.
    pub largest_data: u32,
    /// The agreed policy; for `spread` and `keepalive` see [`Hello::asks`].
    pub policy: Policy,
    /// The proof of the right to resume; at most [`MAX_RESUME_TOKEN`] bytes, may be empty.
    pub resume_token: &'a [u8],
}

/// What became of a client's request to resume a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resumption {
    /// HELLO did not ask.
    NotAsked,
    /// The session is resumed.
    Resumed {
        /// The number of messages to the client that were dropped while it was away.
        gap: u32,
    },
    /// The session is a new one.
    Refused(NotResumed),
}

impl<'a> Hello<'a> {
    /// Decodes a body.
    ///
    /// A field that the flags declare unused must be zero or empty, otherwise the result is
    /// [`Malformed::LeftOver`]: a sender that fills it expects something that would not happen.
    pub(super) fn parse(body: &'a [u8]) -> Result<Hello<'a>, Malformed> {
        let mut body = Fields(body);
        if body.array()? != MAGIC {
            return Err(Malformed::Magic);
        }
        check_version(&mut body)?;
        let flags = body.flags(HELLO_ASKS | HELLO_RESUMES | HELLO_ACCOUNTS)?;
        let capabilities = body.u32()?;
        let boot_id = BootId(body.array()?);
        let instance_id = InstanceId(body.array()?);
        let (session, epoch, received) = (body.u64()?, body.u64()?, body.u64()?);
        let asks = if flags & HELLO_ASKS != 0 {
            Some(body.policy()?)
        } else if body.array()? == [0; fields::POLICY] {
            None
        } else {
            return Err(Malformed::LeftOver);
        };
        let account = if flags & HELLO_ACCOUNTS != 0 {
            Some(Account::parse(&mut body)?)
        } else if body.array()? == [0; Account::SIZE] {
            None
        } else {
            return Err(Malformed::LeftOver);
        };
        let token = body.counted(MAX_RESUME_TOKEN)?;
        let resume = if flags & HELLO_RESUMES != 0 {
            Some(Resume { session, epoch, received, token })
        } else if (session, epoch, received) == (0, 0, 0) && token.is_empty() {
            None
        } else {
            return Err(Malformed::LeftOver);
        };
        let identity = body.text(MAX_IDENTITY)?;
        let token = body.counted(MAX_TOKEN)?;
        body.end()?;
        Ok(Hello { asks, resume, account, capabilities, boot_id, instance_id, identity, token })
    }

    /// Returns the number of bytes that [`Hello::write`] appends.
    pub(super) fn size(&self) -> usize {
        HELLO_FIXED
            + fields::counted_size(self.resume_token())
            + fields::counted_size(self.identity.as_bytes())
            + fields::counted_size(self.token)
    }

    /// Appends the body.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        debug_assert!(self.resume_token().len() <= MAX_RESUME_TOKEN, "resume token");
        debug_assert!(self.identity.len() <= MAX_IDENTITY, "identity");
        debug_assert!(self.token.len() <= MAX_TOKEN, "token");
        let asks = if self.asks.is_some() { HELLO_ASKS } else { 0 };
        let resumes = if self.resume.is_some() { HELLO_RESUMES } else { 0 };
        let accounts = if self.account.is_some() { HELLO_ACCOUNTS } else { 0 };
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[VERSION, asks | resumes | accounts]);
        fields::put_u32(self.capabilities, out);
        out.extend_from_slice(&self.boot_id.0);
        out.extend_from_slice(&self.instance_id.0);
        let resume = self.resume.map_or((0, 0, 0), |it| (it.session, it.epoch, it.received));
        fields::put_u64(resume.0, out);
        fields::put_u64(resume.1, out);
        fields::put_u64(resume.2, out);
        match &self.asks {
            Some(policy) => fields::put_policy(policy, out),
            None => out.extend_from_slice(&[0; fields::POLICY]),
        }
        match &self.account {
            Some(account) => account.write(out),
            None => out.extend_from_slice(&[0; Account::SIZE]),
        }
        fields::put_counted(self.resume_token(), out);
        fields::put_counted(self.identity.as_bytes(), out);
        fields::put_counted(self.token, out);
    }

    fn resume_token(&self) -> &'a [u8] {
        self.resume.map_or(&[], |resume| resume.token)
    }
}

impl<'a> Welcome<'a> {
    /// Decodes a body.
    pub(super) fn parse(body: &'a [u8]) -> Result<Welcome<'a>, Malformed> {
        let mut body = Fields(body);
        check_version(&mut body)?;
        let flags = body.flags(WELCOME_RESUMED | WELCOME_NOT_RESUMED)?;
        let has_windows = body.u32()? & WINDOWS != 0;
        let mut welcome = Welcome {
            resumption: Resumption::NotAsked,
            windows: None,
            boot_id: BootId(body.array()?),
            instance_id: InstanceId(body.array()?),
            session: body.u64()?,
            epoch: body.u64()?,
            received: body.u64()?,
            server_time_ms: body.u64()?,
            resume_window_ms: body.u32()?,
            largest_data: body.u32()?,
            policy: body.policy()?,
            resume_token: body.counted(MAX_RESUME_TOKEN)?,
        };
        if has_windows {
            let limits = Limits { messages: body.u32()?, bytes: body.u32()? };
            if !limits.is_legal() {
                return Err(Malformed::TooLong);
            }
            welcome.windows = Some(limits);
        }
        welcome.resumption = match flags {
            0 => Resumption::NotAsked,
            WELCOME_RESUMED => Resumption::Resumed { gap: body.u32()? },
            WELCOME_NOT_RESUMED => Resumption::Refused(NotResumed::from_code(body.u32()?)),
            _ => return Err(Malformed::LeftOver),
        };
        body.end()?;
        if welcome.largest_data == 0 || welcome.largest_data as usize > MAX_DATA {
            return Err(Malformed::TooLong);
        }
        Ok(welcome)
    }

    /// Returns the number of bytes that [`Welcome::write`] appends.
    pub(super) fn size(&self) -> usize {
        let windows = if self.windows.is_some() { 8 } else { 0 };
        let outcome = if self.resumption == Resumption::NotAsked { 0 } else { 4 };
        WELCOME_FIXED + fields::counted_size(self.resume_token) + windows + outcome
    }

    /// Appends the body.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        debug_assert!(self.resume_token.len() <= MAX_RESUME_TOKEN, "resume token");
        debug_assert!((1..=MAX_DATA).contains(&(self.largest_data as usize)), "largest data");
        let (flags, outcome) = match self.resumption {
            Resumption::NotAsked => (0, None),
            Resumption::Resumed { gap } => (WELCOME_RESUMED, Some(gap)),
            Resumption::Refused(why) => (WELCOME_NOT_RESUMED, Some(why.code())),
        };
        out.extend_from_slice(&[VERSION, flags]);
        fields::put_u32(if self.windows.is_some() { WINDOWS } else { 0 }, out);
        out.extend_from_slice(&self.boot_id.0);
        out.extend_from_slice(&self.instance_id.0);
        fields::put_u64(self.session, out);
        fields::put_u64(self.epoch, out);
        fields::put_u64(self.received, out);
        fields::put_u64(self.server_time_ms, out);
        fields::put_u32(self.resume_window_ms, out);
        fields::put_u32(self.largest_data, out);
        fields::put_policy(&self.policy, out);
        fields::put_counted(self.resume_token, out);
        if let Some(Limits { messages, bytes }) = self.windows {
            fields::put_u32(messages, out);
            fields::put_u32(bytes, out);
        }
        if let Some(outcome) = outcome {
            fields::put_u32(outcome, out);
        }
    }
}

fn check_version(body: &mut Fields<'_>) -> Result<(), Malformed> {
    if body.u8()? == VERSION { Ok(()) } else { Err(Malformed::Version) }
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Debug for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BootId({self})")
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Debug for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InstanceId({self})")
    }
}

fn hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// A placeholder that prints the length of a secret instead of its bytes.
struct Secret(usize);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} secret bytes>", self.0)
    }
}

impl fmt::Debug for Hello<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hello")
            .field("asks", &self.asks)
            .field("resume", &self.resume)
            .field("account", &self.account)
            .field("capabilities", &self.capabilities)
            .field("boot_id", &self.boot_id)
            .field("instance_id", &self.instance_id)
            .field("identity", &self.identity)
            .field("token", &Secret(self.token.len()))
            .finish()
    }
}

impl fmt::Debug for Resume<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resume")
            .field("session", &self.session)
            .field("epoch", &self.epoch)
            .field("received", &self.received)
            .field("token", &Secret(self.token.len()))
            .finish()
    }
}

impl fmt::Debug for Welcome<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Welcome")
            .field("resumption", &self.resumption)
            .field("windows", &self.windows)
            .field("boot_id", &self.boot_id)
            .field("instance_id", &self.instance_id)
            .field("session", &self.session)
            .field("epoch", &self.epoch)
            .field("received", &self.received)
            .field("server_time_ms", &self.server_time_ms)
            .field("resume_window_ms", &self.resume_window_ms)
            .field("largest_data", &self.largest_data)
            .field("policy", &self.policy)
            .field("resume_token", &Secret(self.resume_token.len()))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn no_secret_is_printed() {
        let hello = Hello {
            asks: None,
            resume: Some(Resume { session: 1, epoch: 2, received: 3, token: b"AAAA" }),
            account: None,
            capabilities: 0,
            boot_id: BootId([0xab; 16]),
            instance_id: InstanceId::default(),
            identity: "ada",
            token: b"AAAAA",
        };
        let printed = format!("{hello:?}");
        assert!(!printed.contains("65") && !printed.contains("AAAA"), "{printed}");
        assert!(printed.contains("BootId(abababababababababababababababab)"), "{printed}");
    }
}
