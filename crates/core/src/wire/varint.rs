//! Varints: LEB128 in its shortest form, at most five bytes, values up to 2^32 − 1.

use alloc::vec::Vec;

use super::Malformed;

/// Returns the varint at the front of `bytes` and its length, or `None` if it is incomplete.
///
/// # Errors
/// [`Malformed::Varint`] if the form is not the shortest, or the value is above 2^32 − 1.
pub(super) fn read(bytes: &[u8]) -> Result<Option<(u32, usize)>, Malformed> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().enumerate() {
        // The fifth byte may hold only the topmost four bits, and must be the last.
        if index == 4 && byte > 0x0f {
            return Err(Malformed::Varint);
        }
        value |= u32::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            if byte == 0 && index > 0 {
                return Err(Malformed::Varint);
            }
            return Ok(Some((value, index + 1)));
        }
    }
    Ok(None)
}

/// Appends `value` as a varint.
pub(super) fn write(mut value: u32, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(0x80 | (value & 0x7f) as u8);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Returns the encoded length of `value` in bytes.
pub(super) const fn size(value: u32) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        0x20_0000..0x1000_0000 => 4,
        0x1000_0000.. => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_has_exactly_one_form() {
        let edges = [0, 1, 0x7f, 0x80, 0x3fff, 0x4000, 0x1f_ffff, 0x20_0000, 0xfff_ffff];
        for value in edges.into_iter().chain([0x1000_0000, u32::MAX]) {
            let mut bytes = Vec::new();
            write(value, &mut bytes);
            assert_eq!(bytes.len(), size(value));
            assert_eq!(read(&bytes), Ok(Some((value, bytes.len()))));
            assert_eq!(read(&bytes[..bytes.len() - 1]), Ok(None), "{value} in pieces");
        }
    }

    #[test]
    fn longer_forms_and_larger_values_are_refused() {
        for bytes in [
            &[0x80, 0x00][..],
            &[0xff, 0x80, 0x00],
            &[0xff, 0xff, 0xff, 0xff, 0x10],
            &[0xff, 0xff, 0xff, 0xff, 0x8f],
            &[0x80, 0x80, 0x80, 0x80, 0x00],
        ] {
            assert_eq!(read(bytes), Err(Malformed::Varint), "{bytes:x?}");
        }
    }
}
