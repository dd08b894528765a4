//! The descriptor limit: every link is one descriptor, so it is the first wall a gateway meets.

use std::io;

/// How many descriptors this process may hold open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DescriptorLimit {
    /// What is in force; `None` is no limit.
    pub soft: Option<u64>,
    /// Up to what this process may raise it without privileges; `None` is no limit.
    pub hard: Option<u64>,
}

/// Raises the soft limit on open descriptors to the hard one, and tells both as they then are.
///
/// The usual soft limit of 1,024 protects programs that call `select`; none of ours does.
///
/// # Errors
/// The system refused; the limit in force is unchanged, and [`descriptor_limit`] tells it.
#[cfg(unix)]
pub fn raise_descriptor_limit() -> io::Result<DescriptorLimit> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    }
    Ok(descriptor_limit())
}

/// The limit as it is in force now.
#[cfg(unix)]
pub fn descriptor_limit() -> DescriptorLimit {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    DescriptorLimit { soft: limit.current, hard: limit.maximum }
}

/// This system has no such limit.
///
/// # Errors
/// None here.
#[cfg(not(unix))]
pub fn raise_descriptor_limit() -> io::Result<DescriptorLimit> {
    Ok(descriptor_limit())
}

/// This system has no such limit.
#[cfg(not(unix))]
pub fn descriptor_limit() -> DescriptorLimit {
    DescriptorLimit { soft: None, hard: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raising_reaches_the_hard_limit_and_may_be_repeated() {
        let raised = raise_descriptor_limit().unwrap();
        assert_eq!(raised.soft, raised.hard);
        assert_eq!(raise_descriptor_limit().unwrap(), raised);
        assert_eq!(descriptor_limit(), raised);
    }
}
