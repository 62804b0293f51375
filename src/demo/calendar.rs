//! Working time: people sell from Monday to Friday, by day.
//!
//! A story is told in worked time, which runs without gaps, and put on the calendar at the end. The mapping never runs
//! backwards, so that what was in order stays in order.

use chrono::{DateTime, Datelike, Days, NaiveDate, TimeDelta, Utc};

/// A span of worked time, in milliseconds.
pub type Worked = i64;

/// A worked minute.
pub const MINUTE: Worked = 60 * 1000;
/// A worked day, from 8 to 18 o'clock.
pub const DAY: Worked = 10 * 60 * MINUTE;

const MORNING: TimeDelta = TimeDelta::hours(8);
const WEEK: i64 = 5;

/// A year of work, which is as long whatever day it leads up to.
pub const YEAR: Worked = 52 * WEEK * DAY;

/// Where the year lies.
#[derive(Debug, Clone, Copy)]
pub struct Calendar {
    monday: NaiveDate,
    /// Working days from that Monday to the first day of the year.
    offset: i64,
}

impl Calendar {
    /// The 52 weeks before a day, or before the Monday after it when it is a Saturday or a Sunday.
    pub fn until(day: NaiveDate) -> Self {
        let weekday = day.weekday().num_days_from_monday();
        Self {
            monday: day - Days::new(u64::from(weekday) + 52 * 7),
            offset: i64::from(weekday).min(WEEK),
        }
    }

    /// When a span of worked time has passed since the beginning; before it when the span is negative, and beyond the
    /// end for what is planned.
    pub fn moment(&self, worked: Worked) -> DateTime<Utc> {
        let day = self.offset + worked.div_euclid(DAY);
        let days = day.div_euclid(WEEK) * 7 + day.rem_euclid(WEEK);
        let midnight = self.monday.and_time(chrono::NaiveTime::MIN).and_utc();
        midnight + TimeDelta::days(days) + MORNING + TimeDelta::milliseconds(worked.rem_euclid(DAY))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worked_time_runs_forwards_over_nights_and_weekends() {
        let day = NaiveDate::from_ymd_opt(2026, 11, 18).expect("a Wednesday");
        let calendar = Calendar::until(day);
        let moments: Vec<_> = (0..600).map(|n| calendar.moment(n * DAY / 2 - DAY)).collect();
        assert!(moments.is_sorted_by(|a, b| a < b));
        assert!(moments.iter().all(|at| at.weekday().num_days_from_monday() < 5));
        assert!(calendar.moment(YEAR - 1).date_naive() < day);
        assert_eq!(calendar.moment(YEAR).date_naive(), day);
    }

    #[test]
    fn the_year_ends_before_a_weekend() {
        for day in 21..=22 {
            let day = NaiveDate::from_ymd_opt(2026, 11, day).expect("a Saturday and a Sunday");
            let calendar = Calendar::until(day);
            assert!(calendar.moment(YEAR - 1).date_naive() < day);
            assert!(calendar.moment(YEAR).date_naive() > day);
        }
    }
}
