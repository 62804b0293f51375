//! Chance that falls the same way every time: the same seed gives the same data, on every machine and with every
//! version of the crates we use, which a crate's generator does not promise.

use chrono::{DateTime, Utc};

use crate::db::id::Id;

/// A source of pseudo-random numbers (SplitMix64).
pub struct Dice(u64);

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

impl Dice {
    /// Dice for one of several things that are made from one seed.
    pub fn new(seed: u64, number: u64) -> Self {
        Self(mix(seed.wrapping_add(GOLDEN)) ^ mix(number.wrapping_mul(GOLDEN)))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }

    /// A number from 0 to `end`, without `end`; 0 when that is 0.
    pub fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.next()) * end as u128) >> 64) as usize
    }

    /// A number from `from` to `to`, both included.
    pub fn between(&mut self, from: i64, to: i64) -> i64 {
        from + self.below((to - from).max(0) as usize + 1) as i64
    }

    /// A number from 0 to 1, without 1.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// True so many times of a hundred.
    pub fn chance(&mut self, percent: u32) -> bool {
        self.below(100) < percent as usize
    }

    /// One of several; there must be one.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// A number around a median, log-normally: twice as much is as likely as half as much.
    pub fn around(&mut self, median: f64, spread: f64) -> f64 {
        // Twelve numbers make a bell close enough, from additions only.
        let bell = (0..12).map(|_| self.unit()).sum::<f64>() - 6.0;
        median * (bell * spread).exp()
    }

    /// The id of a record that was made at a moment.
    pub fn id<T>(&mut self, at: DateTime<Utc>) -> Id<T> {
        let mut chance = [0; 10];
        chance[..8].copy_from_slice(&self.next().to_be_bytes());
        chance[8..].copy_from_slice(&self.next().to_be_bytes()[..2]);
        let millis = at.timestamp_millis().max(0).unsigned_abs();
        Id::from_uuid(uuid::Builder::from_unix_timestamp_millis(millis, &chance).into_uuid())
    }
}
