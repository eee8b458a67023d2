//! Bits one after the other in bytes, the lowest of a byte first.

/// Appends bits to a vector of bytes; [`Self::finish`] fills the last byte with zeros.
#[derive(Debug)]
pub(super) struct BitWriter<'a> {
    out: &'a mut Vec<u8>,
    word: u64,
    /// Bits of `word` that are used; below 32.
    used: u32,
}

impl<'a> BitWriter<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, word: 0, used: 0 }
    }

    /// Appends the lowest `count` bits of `value`; `count` is at most 64.
    pub(super) fn push(&mut self, value: u64, count: u32) {
        if count > 32 {
            self.push(value & u64::from(u32::MAX), 32);
            return self.push(value >> 32, count - 32);
        }
        self.word |= (value & ((1 << count) - 1)) << self.used;
        self.used += count;
        if self.used >= 32 {
            self.out.extend_from_slice(&(self.word as u32).to_le_bytes());
            self.word >>= 32;
            self.used -= 32;
        }
    }

    /// Appends `count` ones; `count` is below 64.
    pub(super) fn ones(&mut self, count: u32) {
        self.push((1 << count) - 1, count);
    }

    pub(super) fn finish(self) {
        let bytes = self.word.to_le_bytes();
        self.out.extend_from_slice(&bytes[..self.used.div_ceil(8) as usize]);
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
