//! Bits one after the other in bytes, the lowest of a byte first.

/// Appends bits to a vector of bytes; the last byte is filled with zeros.
#[derive(Debug)]
pub(super) struct BitWriter<'a> {
    out: &'a mut Vec<u8>,
    /// Bits used of the last byte; 0 where a new one must be begun.
    used: u32,
}

impl<'a> BitWriter<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, used: 0 }
    }

    /// Appends the lowest `count` bits of `value`; `count` is at most 64.
    pub(super) fn push(&mut self, mut value: u64, mut count: u32) {
        while count > 0 {
            if self.used == 0 {
                self.out.push(0);
            }
            let taken = count.min(8 - self.used);
            let bits = (value & ((1 << taken) - 1)) as u8;
            if let Some(last) = self.out.last_mut() {
                *last |= bits << self.used;
            }
            self.used = (self.used + taken) % 8;
            value = value.checked_shr(taken).unwrap_or(0);
            count -= taken;
        }
    }

    /// Appends `count` ones; `count` is below 64.
    pub(super) fn ones(&mut self, count: u32) {
        self.push((1 << count) - 1, count);
    }
}

/// Reads what [`BitWriter`] wrote.
#[derive(Debug)]
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> BitReader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next `count` bits; `count` is at most 64.
    pub(super) fn take(&mut self, count: u32) -> Option<u64> {
        let (mut value, mut got) = (0_u64, 0);
        while got < count {
            let byte = *self.bytes.get(self.at / 8)?;
            let used = (self.at % 8) as u32;
            let taken = (count - got).min(8 - used);
            let bits = u64::from(byte >> used) & ((1 << taken) - 1);
            value |= bits << got;
            got += taken;
            self.at += taken as usize;
        }
        Some(value)
    }

    /// Counts ones up to the next zero, which is taken too, or up to `limit`, after which nothing more is taken.
    pub(super) fn ones(&mut self, limit: u32) -> Option<u32> {
        for count in 0..limit {
            if self.take(1)? == 0 {
                return Some(count);
            }
        }
        Some(limit)
    }

    /// The bytes after the one at hand.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at.div_ceil(8)..).unwrap_or_default()
    }
}
