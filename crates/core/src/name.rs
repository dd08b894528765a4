//! A compact text, of which each session holds one: its identity.

use alloc::boxed::Box;
use core::fmt;
use core::ops::Deref;

use crate::plain::{Damage, Plain, Sink, Source};

/// The longest text that needs no memory of its own, in bytes.
const INLINE: usize = 14;

/// A text of 16 bytes; a longer one than [`INLINE`] is boxed.
#[derive(Clone)]
pub(crate) struct Name(Form);

#[derive(Clone)]
enum Form {
    Inline { length: u8, bytes: [u8; INLINE] },
    // Two boxes, because one of a text has twice the size.
    Boxed(Box<Box<str>>),
}

// A part of the memory of an idle link.
const _: () = assert!(size_of::<Name>() <= 16);

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        match &self.0 {
            Form::Inline { length, bytes } => {
                let text = bytes.get(..usize::from(*length)).unwrap_or_default();
                core::str::from_utf8(text).unwrap_or_default()
            }
            Form::Boxed(text) => text,
        }
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Name {
        let mut bytes = [0; INLINE];
        let Some(start) = bytes.get_mut(..text.len()) else {
            return Name(Form::Boxed(Box::new(text.into())));
        };
        start.copy_from_slice(text.as_bytes());
        Name(Form::Inline { length: text.len() as u8, bytes })
    }
}

impl Default for Name {
    fn default() -> Name {
        Name::from("")
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// As a text, whatever the form.
impl Plain<'_> for Name {
    fn put(&self, out: &mut Sink<'_>) {
        self.as_bytes().put(out);
    }

    fn take(from: &mut Source<'_>) -> Result<Self, Damage> {
        let text = core::str::from_utf8(<&[u8]>::take(from)?);
        text.map(Name::from).map_err(|_| Damage::Illegal)
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::String;

    use super::*;

    #[test]
    fn a_name_is_its_text_at_each_length() {
        for length in 0..40 {
            let text: String =
                "bücher und mehr, von hier bis dort".chars().cycle().take(length).collect();
            let name = Name::from(&*text);
            assert_eq!((&*name, format!("{name:?}")), (&*text, format!("{text:?}")));
            assert_eq!(&*name.clone(), &*text);
        }
        assert_eq!(&*Name::default(), "");
    }
}
