//! A bounded reader over one response. No length or count is trusted beyond the bytes that are
//! present, so a response cannot make us allocate more than a small multiple of its size.

/// The response ends too early, or contains an impossible length, count or string.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed Kafka response")]
pub(super) struct Malformed;

/// Reads a response from start to end.
#[derive(Debug)]
pub(super) struct ResponseCursor<'a> {
    rest: &'a [u8],
    /// Whether lengths are varints and structures end in tagged fields (KIP-482).
    flexible: bool,
}

impl<'a> ResponseCursor<'a> {
    pub(super) fn new(bytes: &'a [u8], flexible: bool) -> Self {
        Self {
            rest: bytes,
            flexible,
        }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Malformed)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(super) fn bool(&mut self) -> Result<bool, Malformed> {
        Ok(self.array::<1>()? != [0])
    }

    pub(super) fn i8(&mut self) -> Result<i8, Malformed> {
        self.array().map(i8::from_be_bytes)
    }

    pub(super) fn i16(&mut self) -> Result<i16, Malformed> {
        self.array().map(i16::from_be_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32, Malformed> {
        self.array().map(i32::from_be_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64, Malformed> {
        self.array().map(i64::from_be_bytes)
    }

    pub(super) fn uuid(&mut self) -> Result<[u8; 16], Malformed> {
        self.array()
    }

    /// Reads an unsigned 32-bit varint, at most five bytes long.
    fn varint(&mut self) -> Result<u32, Malformed> {
        let mut value = 0_u32;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array()?;
            let bits = u32::from(byte & 0x7f);
            if shift == 28 && byte > 0x0f {
                return Err(Malformed);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    /// Reads a length or count, `None` for null. Compact ones are stored plus one.
    fn length(&mut self, plain: impl FnOnce(&mut Self) -> Result<i32, Malformed>) -> Length {
        if self.flexible {
            let Some(length) = self.varint()?.checked_sub(1) else {
                return Ok(None);
            };
            return usize::try_from(length).map(Some).map_err(|_| Malformed);
        }
        match plain(self)? {
            -1 => Ok(None),
            length => usize::try_from(length).map(Some).map_err(|_| Malformed),
        }
    }

    /// Reads the count of items that take at least `least` bytes each; fails if they cannot fit
    /// into the rest, so that callers may reserve memory for them. Null counts as zero.
    pub(super) fn count(&mut self, least: usize) -> Result<usize, Malformed> {
        let count = self.length(Self::i32)?.unwrap_or(0);
        match count.checked_mul(least) {
            Some(bytes) if bytes <= self.rest.len() => Ok(count),
            _ => Err(Malformed),
        }
    }

    fn text(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        let length = self.length(|cursor| cursor.i16().map(i32::from))?;
        length.map(|length| self.take(length)).transpose()
    }

    pub(super) fn string(&mut self) -> Result<&'a str, Malformed> {
        self.nullable_string()?.ok_or(Malformed)
    }

    pub(super) fn nullable_string(&mut self) -> Result<Option<&'a str>, Malformed> {
        let text = self.text()?;
        text.map(|bytes| std::str::from_utf8(bytes).map_err(|_| Malformed))
            .transpose()
    }

    /// Skips a nullable string without validating it.
    pub(super) fn skip_string(&mut self) -> Result<(), Malformed> {
        self.text().map(drop)
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.length(Self::i32)?.ok_or(Malformed)?;
        self.take(length)
    }

    pub(super) fn i32s(&mut self) -> Result<Vec<i32>, Malformed> {
        let count = self.count(4)?;
        (0..count).map(|_| self.i32()).collect()
    }

    /// Skips an array of 32-bit integers.
    pub(super) fn skip_i32s(&mut self) -> Result<(), Malformed> {
        let count = self.count(4)?;
        self.take(count.saturating_mul(4)).map(drop)
    }

    /// Skips the tagged fields at the end of a structure, in flexible versions.
    pub(super) fn skip_tags(&mut self) -> Result<(), Malformed> {
        if !self.flexible {
            return Ok(());
        }
        for _ in 0..self.varint()? {
            self.varint()?;
            let size = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
            self.take(size)?;
        }
        Ok(())
    }

    /// Number of unread bytes.
    pub(super) fn remaining(&self) -> usize {
        self.rest.len()
    }
}

type Length = Result<Option<usize>, Malformed>;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_count_beyond_the_bytes_present_is_refused() {
        let mut plain = 0x7fff_ffff_i32.to_be_bytes().to_vec();
        plain.extend([0; 5]);
        assert_eq!(ResponseCursor::new(&plain, false).count(1), Err(Malformed));
        let compact = [0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0];
        assert_eq!(ResponseCursor::new(&compact, true).count(1), Err(Malformed));
        assert_eq!(ResponseCursor::new(&compact, true).bytes(), Err(Malformed));
        assert_eq!(ResponseCursor::new(&[3, 1, 2], true).count(1), Ok(2));
        assert_eq!(
            ResponseCursor::new(&[3, 1, 2], true).count(2),
            Err(Malformed)
        );
    }

    #[test]
    fn strings_and_nulls_decode_in_both_forms() {
        assert_eq!(
            ResponseCursor::new(&[0, 2, b'o', b'k'], false).string(),
            Ok("ok")
        );
        assert_eq!(
            ResponseCursor::new(&[3, b'o', b'k'], true).string(),
            Ok("ok")
        );
        assert_eq!(
            ResponseCursor::new(&[0xff, 0xff], false).nullable_string(),
            Ok(None)
        );
        assert_eq!(ResponseCursor::new(&[0], true).nullable_string(), Ok(None));
        assert_eq!(
            ResponseCursor::new(&[0xff, 0xfe], false).nullable_string(),
            Err(Malformed)
        );
        assert_eq!(
            ResponseCursor::new(&[2, 0xff], true).string(),
            Err(Malformed)
        );
        assert_eq!(
            ResponseCursor::new(&[0xff, 0xff, 0xff, 0xff, 0x1f], true).varint(),
            Err(Malformed)
        );
        assert_eq!(
            ResponseCursor::new(&[0xff, 0xff, 0xff, 0xff, 0x0f], true).varint(),
            Ok(u32::MAX)
        );
    }

    #[test]
    fn tagged_fields_are_skipped_and_bounded() {
        let mut cursor = ResponseCursor::new(&[2, 7, 1, 9, 0, 0, 42], true);
        assert_eq!(cursor.skip_tags(), Ok(()));
        assert_eq!(cursor.rest, [42]);
        assert_eq!(
            ResponseCursor::new(&[0xff, 0xff, 0xff, 0xff, 0x0f, 1], true).skip_tags(),
            Err(Malformed)
        );
        assert_eq!(ResponseCursor::new(&[9], false).skip_tags(), Ok(()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe_in_any_order_of_calls(bytes: Vec<u8>, flexible: bool, calls: Vec<u8>) {
            let mut cursor = ResponseCursor::new(&bytes, flexible);
            for call in calls {
                let before = cursor.rest.len();
                match call % 11 {
                    0 => drop(cursor.i16()),
                    1 => drop(cursor.i32()),
                    2 => drop(cursor.i64()),
                    3 => drop(cursor.uuid()),
                    4 => if let Ok(count) = cursor.count(3) {
                        prop_assert!(count * 3 <= before);
                    },
                    5 => if let Ok(Some(text)) = cursor.nullable_string() {
                        prop_assert!(text.len() <= before);
                    },
                    6 => drop(cursor.bytes()),
                    7 => drop(cursor.skip_tags()),
                    8 => drop(cursor.i8()),
                    9 => if let Ok(numbers) = cursor.i32s() {
                        prop_assert!(numbers.len() * 4 <= before);
                    },
                    _ => drop(cursor.skip_i32s()),
                }
                prop_assert!(cursor.rest.len() <= before);
            }
        }
    }
}
