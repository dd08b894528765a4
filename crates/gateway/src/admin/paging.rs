//! The parameters of a request for one page of a list.

use std::ops::RangeInclusive;

use utoipa::IntoParams;

use super::answer::Trouble;
use super::fields::{Fields, FromFields};
use crate::request::SESSIONS_PER_PAGE;

/// Default number of entries per page.
const DEFAULT_LIMIT: usize = 100;

/// The page to return.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Paging {
    /// Page size; 100 by default.
    limit: Option<usize>,
    /// `next` of the previous page.
    cursor: Option<String>,
}

impl Paging {
    /// Returns the maximum number of entries of the page.
    pub(super) fn limit(&self) -> usize {
        self.limit.unwrap_or(DEFAULT_LIMIT)
    }

    /// Returns the position at which the page starts, which `read` reads; `None` for the first
    /// page.
    pub(super) fn cursor<T>(
        &self,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Trouble> {
        let position = |text| {
            let unknown =
                || Trouble::bad("`cursor` is unknown", "pass `next` of the previous page");
            read(text).ok_or_else(unknown)
        };
        self.cursor.as_deref().map(position).transpose()
    }
}

impl FromFields for Paging {
    fn names() -> Vec<&'static str> {
        vec!["limit", "cursor"]
    }

    fn ranges() -> Vec<(&'static str, RangeInclusive<u64>)> {
        vec![("limit", 1..=SESSIONS_PER_PAGE as u64)]
    }

    fn from_fields(fields: &mut Fields) -> Result<Paging, Trouble> {
        let limit = fields.number("limit")?;
        let limit = limit.and_then(|limit| usize::try_from(limit).ok());
        Ok(Paging { limit, cursor: fields.text("cursor")? })
    }
}
