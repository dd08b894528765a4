//! Handlers that keep somebody out for a time.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use systole_core::Span;
use systole_core::wire::{BootId, MAX_IDENTITY, is_identity};
use utoipa::ToSchema;

use super::answer::{Body, Json, Trouble};
use super::fields::{Fields, FromFields};
use super::state::Shared;
use crate::bans::{Banned, KeptOut};
use crate::gateway::ShardUnavailable;
use crate::gateway::ban::{Banning, Farewell, Lifting};

/// The longest ban: ten years.
pub(super) const LONGEST: u64 = 10 * 365 * 86_400;

/// Whom to ban: one of identity, device and address.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Wish {
    /// Whoever has or claims this identity.
    identity: Option<String>,
    /// The machine with this boot id, 32 hexadecimal digits.
    device: Option<String>,
    /// An IPv4 address, or the /64 of an IPv6 address.
    address: Option<String>,
    /// For how long; 0 ends a ban.
    seconds: u64,
    /// What the people at the clients are told, at most 128 bytes: those that are online, and those
    /// that log in while the ban lasts.
    text: Option<String>,
}

impl FromFields for Wish {
    fn names() -> Vec<&'static str> {
        vec!["identity", "device", "address", "seconds", "text"]
    }

    fn ranges() -> Vec<(&'static str, RangeInclusive<u64>)> {
        vec![("seconds", 0..=LONGEST)]
    }

    fn from_fields(fields: &mut Fields) -> Result<Wish, Trouble> {
        let hint = "as in {\"identity\": \"ada\", \"seconds\": 3600}; 0 ends a ban";
        let seconds = fields.number("seconds")?;
        Ok(Wish {
            identity: fields.text("identity")?,
            device: fields.text("device")?,
            address: fields.text("address")?,
            seconds: seconds.ok_or_else(|| Trouble::bad("`seconds` is missing", hint))?,
            text: fields.close_text("text")?,
        })
    }
}

impl Wish {
    fn who(&self) -> Result<Banned, Trouble> {
        let hint = "name one: identity, device (32 hexadecimal digits) or address";
        match (&self.identity, &self.device, &self.address) {
            // Nobody can have another one, so a ban of it would keep nobody out.
            (Some(identity), None, None) if is_identity(identity) => {
                Ok(Banned::Identity(identity.as_str().into()))
            }
            (Some(_), None, None) => {
                let hint = format!("1 to {MAX_IDENTITY} bytes, without control characters");
                Err(Trouble::bad("`identity` is none", hint))
            }
            (None, Some(device), None) => {
                // A sign would be read as a part of the number.
                let is_hex = |it: &&String| it.bytes().all(|byte| byte.is_ascii_hexdigit());
                let number = Some(device).filter(|it| it.len() == 32).filter(is_hex);
                let number = number.and_then(|it| u128::from_str_radix(it, 16).ok());
                let number = number.filter(|number| *number != 0);
                let number = number.ok_or_else(|| Trouble::bad("`device` is none", hint))?;
                Ok(Banned::Device(BootId(number.to_be_bytes())))
            }
            (None, None, Some(address)) => {
                let address = address.parse::<IpAddr>();
                let none = |_| Trouble::bad("`address` is none", hint);
                Ok(Banned::Address(address.map_err(none)?.into()))
            }
            _ => Err(Trouble::bad("the request does not say who is banned", hint)),
        }
    }
}

/// A ban in force.
#[derive(Serialize, ToSchema)]
pub(super) struct Ban {
    /// The identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<String>,
    /// The boot id of the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    /// The address; of an IPv6 /64 its first.
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    /// For how much longer.
    seconds_left: u64,
    /// When it ends, in milliseconds since 1970-01-01 UTC, if nobody sets the clock.
    until_ms: u64,
    /// What the people at the clients are told.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

impl Ban {
    pub(super) fn new(shared: &Shared, who: Banned, kept_out: KeptOut) -> Ban {
        let (mut identity, mut device, mut address) = (None, None, None);
        match who {
            Banned::Identity(name) => identity = Some(name.into()),
            Banned::Device(id) => device = Some(format!("{:032x}", u128::from_be_bytes(id.0))),
            Banned::Address(origin) => address = Some(origin.address().to_string()),
        }
        let KeptOut { left, text } = kept_out;
        let text = Some(&*text).filter(|text| !text.is_empty()).map(str::to_owned);
        let left = left.as_millis();
        let until_ms = shared.gateway.bans().wall_ms().saturating_add(left);
        Ban { identity, device, address, seconds_left: left.div_ceil(1_000), until_ms, text }
    }
}

/// All bans in force.
#[derive(Serialize, ToSchema)]
pub(super) struct BanList {
    /// The bans.
    bans: Vec<Ban>,
    /// Whether a restart of the gateway forgets them, or some change of them: there is no store,
    /// or it fails.
    lost_at_restart: bool,
}

/// What became of a wish.
#[derive(Serialize, ToSchema)]
pub(super) struct BanDone {
    /// How many sessions it has ended.
    pub(super) ended: u64,
    /// With `seconds` 0: whether there was such a ban. Absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) found: Option<bool>,
    /// Whether a restart of the gateway forgets this: there is no store, or it fails.
    pub(super) lost_at_restart: bool,
}

/// Lists the bans that are in force.
#[utoipa::path(get, path = "/api/v1/bans", responses((status = 200, body = BanList)))]
pub(super) async fn list(State(shared): State<Shared>) -> Json<BanList> {
    let bans = in_force(&shared).map(|(who, kept_out)| Ban::new(&shared, who, kept_out)).collect();
    Json(BanList { bans, lost_at_restart: shared.gateway.loses_bans_at_restart() })
}

/// Returns the bans that are in force, and what those who are banned are told.
pub(super) fn in_force(shared: &Shared) -> impl Iterator<Item = (Banned, KeptOut)> {
    shared.gateway.bans().all().into_iter()
}

/// Keeps somebody out for a time, and ends the sessions online that this concerns; or ends a ban.
#[utoipa::path(
    post,
    path = "/api/v1/bans",
    request_body = Wish,
    responses((status = 200, body = BanDone), (status = 503, body = Trouble))
)]
pub(super) async fn set(
    State(shared): State<Shared>,
    Body(wish): Body<Wish>,
) -> Result<Json<BanDone>, Trouble> {
    let who = wish.who()?;
    if wish.seconds == 0 {
        let gateway = shared.gateway.clone();
        let lifting = tokio::spawn(async move {
            let lifting = gateway.lift_ban(who.clone()).await;
            let found = lifting.was_banned;
            tracing::info!(?who, found, "a ban is ended over the admin interface");
            lifting
        });
        let Lifting { was_banned, is_lost_at_restart: lost_at_restart } =
            lifting.await.map_err(|_| ShardUnavailable::Gone)?;
        return Ok(Json(BanDone { ended: 0, found: Some(was_banned), lost_at_restart }));
    }
    let farewell = Farewell { stay_away: false, text: wish.text.unwrap_or_default().into() };
    ban(&shared, vec![who], wish.seconds, farewell, None).await.map(Json)
}

/// Bans somebody, and ends the sessions online that this concerns, and `session`.
pub(super) async fn ban(
    shared: &Shared,
    who: Vec<Banned>,
    seconds: u64,
    farewell: Farewell,
    session: Option<u64>,
) -> Result<BanDone, Trouble> {
    let gateway = shared.gateway.clone();
    // A caller that hangs up stops nothing: sessions of somebody banned would be left.
    let banning = tokio::spawn(async move {
        let banned = gateway.ban(&who, Span::from_secs(seconds), farewell, session).await;
        let Banning { ended, is_lost_at_restart: lost_at_restart } = banned.map_err(|_| {
            let hint = "end some: POST with seconds 0";
            Trouble::new(StatusCode::SERVICE_UNAVAILABLE, "there are 10,000 bans already", hint)
        })?;
        let ended = ended?;
        tracing::info!(?who, seconds, ended, "banned over the admin interface");
        Ok(BanDone { ended, found: None, lost_at_restart })
    });
    banning.await.unwrap_or_else(|_| Err(ShardUnavailable::Gone.into()))
}
