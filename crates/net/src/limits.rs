//! The limit on open descriptors: each link uses one, so a gateway reaches this limit first.

use std::io;

/// Limits on the number of descriptors that this process may have open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DescriptorLimit {
    /// The limit in force; `None` means no limit.
    pub soft: Option<u64>,
    /// The value up to which this process may raise `soft` without privileges; `None` means no
    /// limit.
    pub hard: Option<u64>,
}

/// Raises the soft limit on open descriptors to the hard limit, and returns both.
///
/// The usual soft limit of 1,024 protects programs that call `select`, which Systole does not.
///
/// # Errors
/// The system refused; the limit in force is unchanged, see [`descriptor_limit`].
#[cfg(unix)]
pub fn raise_descriptor_limit() -> io::Result<DescriptorLimit> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    }
    Ok(descriptor_limit())
}

/// Returns the limits in force now.
#[cfg(unix)]
pub fn descriptor_limit() -> DescriptorLimit {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    DescriptorLimit { soft: limit.current, hard: limit.maximum }
}

/// Returns no limits: this system has none.
///
/// # Errors
/// None here.
#[cfg(not(unix))]
pub fn raise_descriptor_limit() -> io::Result<DescriptorLimit> {
    Ok(descriptor_limit())
}

/// Returns no limits: this system has none.
#[cfg(not(unix))]
pub fn descriptor_limit() -> DescriptorLimit {
    DescriptorLimit { soft: None, hard: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raising_reaches_the_hard_limit_and_is_idempotent() {
        let raised = raise_descriptor_limit().unwrap();
        assert_eq!(raised.soft, raised.hard);
        assert_eq!(raise_descriptor_limit().unwrap(), raised);
        assert_eq!(descriptor_limit(), raised);
    }
}
