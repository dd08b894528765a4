//! What the answer to an admission says: who a peer is, what it is granted, or why it is refused.

use systole_core::hub::{Grant, MAX_ATTRIBUTES, Proof};
use systole_core::link::Goodbye;
use systole_core::random::Random;
use systole_core::wire::CloseReason;
use systole_core::{Span, Time};

use super::peer::claim;

/// Names in certificates and tokens that are no identity: empty, with a control character, longer
/// than 64 bytes.
const NO_IDENTITIES: [&str; 3] =
    ["", "a\nb", "01234567890123456789012345678901234567890123456789012345678901234"];

/// What is said of a peer on each question about its connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Answered {
    /// The identity that it has proved.
    proof: Option<String>,
    /// Whether it has proved none, and its claim is not believed.
    anonymous: bool,
    attributes: String,
    lasts: Option<Span>,
}

impl Answered {
    /// Draws what is said of the peer with this number: mostly that its claim is believed, else
    /// that it has proved the usual claim, or for peers that need not live also another one or none
    /// at all. `unit` is that of all times.
    pub(super) fn new(name: usize, healthy: bool, unit: u64, random: &mut Random) -> Answered {
        let proof = match random.below(32) {
            0 if !healthy => Some(format!("another-{name}")),
            1 if !healthy => Some(NO_IDENTITIES[random.below(3) as usize].into()),
            0..8 => Some(claim(name)),
            _ => None,
        };
        let anonymous = proof.is_none() && random.below(6) == 0;
        let attributes = match random.below(16) {
            0 => "x".repeat(MAX_ATTRIBUTES + 1),
            1 => "x".repeat(MAX_ATTRIBUTES),
            2..6 => format!("{{\"number\": {name}}}"),
            _ => String::new(),
        };
        let lasts = (random.below(6) == 0).then(|| Span::from_nanos(random.below(unit * 60)));
        Answered { proof, anonymous, attributes, lasts }
    }

    pub(super) fn proof(&self) -> Proof<'_> {
        match &self.proof {
            _ if self.anonymous => Proof::Anonymous,
            Some(identity) => Proof::Proved(identity),
            None => Proof::Claim,
        }
    }

    pub(super) fn grant(&self) -> Grant<'_> {
        Grant { attributes: &self.attributes, lasts: self.lasts }
    }
}

/// What a session has by the rules in docs/identity.md.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Granted {
    pub(super) identity: String,
    /// None if there are more than 1 KiB.
    pub(super) attributes: String,
    /// When it ends.
    pub(super) ends_at: Option<Time>,
}

impl Granted {
    /// Returns what a peer gets that claims `claim`; an error is whether what it has proved is an
    /// identity at all.
    pub(super) fn new(now: Time, claim: &str, said: &Answered) -> Result<Granted, bool> {
        let identity = match said.proof() {
            Proof::Claim => claim,
            Proof::Anonymous => "",
            Proof::Proved(proved) => {
                let is_identity =
                    (1..=64).contains(&proved.len()) && !proved.contains(char::is_control);
                if !is_identity || !claim.is_empty() && claim != proved {
                    return Err(is_identity);
                }
                proved
            }
        };
        let fits = said.attributes.len() <= 1_024;
        Ok(Granted {
            identity: identity.into(),
            attributes: if fits { said.attributes.clone() } else { String::new() },
            ends_at: said.lasts.map(|lasts| now + lasts),
        })
    }
}

/// Draws why a login is refused, and when its peer may come back.
pub(super) fn refusal(random: &mut Random) -> Goodbye {
    let reason = match random.below(6) {
        0 => CloseReason::Full,
        1 => CloseReason::Kicked,
        2 => CloseReason::Replaced,
        3 => CloseReason::Other(200),
        _ => CloseReason::Unauthorized,
    };
    // Sixty days are more milliseconds than a CLOSE can say.
    let return_after = [0, 1, 5_000, 60 * 86_400_000][random.below(4) as usize];
    Goodbye {
        reason,
        stay_away: random.below(2) == 0,
        return_after: Span::from_millis(return_after),
    }
}
