//! A tenant's year: whom it met, what it sold and lost, and who talked to whom, made up from a seed.
//!
//! Everything comes after what it builds on: nobody sells to a contact who is not known yet. Deals move by
//! [`Deal::move_to`] like any other deal, so the story cannot tell what the application would not do.

use std::collections::HashSet;

use chrono::{DateTime, TimeDelta, Utc};

use super::calendar::{Calendar, DAY, MINUTE, Worked, YEAR};
use super::dice::Dice;
use super::words::{self, City, Talk, Trade};
use crate::crm::companies::{Company, PostalAddress};
use crate::crm::contacts::{Contact, LifecycleStage, RecordStatus};
use crate::crm::deals::{Deal, DealStageChange, DealStatus, StageMove};
use crate::crm::interactions::{Interaction, InteractionDirection, InteractionKind};
use crate::crm::pipelines::{PipelineStage, StageKind};
use crate::db::id::Id;
use crate::graphql::scalar::CurrencyCode;
use crate::identity::User;

/// How much happens.
#[derive(Debug, Clone, Copy)]
pub struct Scope {
    pub companies: usize,
    pub contacts: usize,
    pub deals: usize,
    pub interactions: usize,
}

/// Who acts, and on what stage.
pub struct Cast<'a> {
    /// Those who own records; somebody who is named twice owns twice as many.
    pub sellers: Vec<Id<User>>,
    /// The stages of the pipeline, in order: open ones, a won one and a lost one.
    pub stages: Vec<PipelineStage>,
    pub currency_code: CurrencyCode,
    pub trade: &'a Trade,
}

/// All that happened.
#[derive(Default)]
pub struct Story {
    pub companies: Vec<Company>,
    pub contacts: Vec<Contact>,
    /// The deals as they began.
    pub beginnings: Vec<Deal>,
    /// The deals as they are now, in the same order.
    pub deals: Vec<Deal>,
    /// The stays of deals in stages, deal by deal and in order, each with what the history keeps of the move to it.
    pub stays: Vec<(DealStageChange, Option<StageMove>)>,
    pub interactions: Vec<Interaction>,
}

/// How a deal leaves an open stage, by the number of the stage: days until then, percent that go on.
const PACE: [(f64, u32); 4] = [(13.0, 76), (17.0, 72), (22.0, 68), (16.0, 74)];
/// What a deal that ends in an open stage is worth, compared with the median: those that get further are larger.
const WORTH: [f64; 4] = [0.6, 0.85, 1.1, 1.4];

impl Story {
    /// Makes up a year.
    pub fn write(scope: Scope, cast: &Cast<'_>, calendar: &Calendar, dice: &mut Dice) -> Self {
        let mut teller = Teller {
            cast,
            calendar,
            dice,
            story: Self::default(),
            company_times: Vec::new(),
            contact_times: Vec::new(),
            company_cities: Vec::new(),
            deal_spans: Vec::new(),
            offers: Vec::new(),
            employers: Vec::new(),
            customers: Vec::new(),
        };
        teller.meet_companies(scope.companies);
        teller.meet_contacts(scope.contacts);
        teller.sell(scope.deals);
        teller.talk(scope.interactions);
        teller.story
    }
}

struct Teller<'a> {
    cast: &'a Cast<'a>,
    calendar: &'a Calendar,
    dice: &'a mut Dice,
    story: Story,
    /// When each company was met, in order; likewise the contacts.
    company_times: Vec<Worked>,
    contact_times: Vec<Worked>,
    company_cities: Vec<&'static City>,
    /// When each deal began and when it ended, or the end of the year.
    deal_spans: Vec<(Worked, Worked)>,
    /// What each deal is about.
    offers: Vec<&'a str>,
    /// The company of each contact, and the contact of each deal, by their numbers.
    employers: Vec<Option<usize>>,
    customers: Vec<Option<usize>>,
}

impl<'a> Teller<'a> {
    /// `count` moments of the year in order, the first at its beginning. A `bend` below 1 puts more of them late.
    fn moments(&mut self, count: usize, bend: f64) -> Vec<Worked> {
        let year = (YEAR - DAY) as f64;
        let mut moments: Vec<Worked> = (0..count)
            .map(|_| (year * self.dice.unit().powf(bend)) as Worked)
            .collect();
        moments.sort_unstable();
        if let Some(first) = moments.first_mut() {
            *first = 0;
        }
        moments
    }

    /// The index of something that was known at a moment.
    fn known(&mut self, times: &[Worked], at: Worked) -> Option<usize> {
        let known = times.partition_point(|time| *time <= at);
        (known > 0).then(|| self.dice.below(known))
    }

    fn seller(&mut self) -> Option<Id<User>> {
        let sellers = &self.cast.sellers;
        (!sellers.is_empty()).then(|| *self.dice.pick(sellers))
    }

    fn meet_companies(&mut self, count: usize) {
        let mut names = HashSet::with_capacity(count);
        self.company_times = self.moments(count, 1.5);
        for n in 0..count {
            let at = self.calendar.moment(self.company_times[n]);
            let city = self.dice.pick(&words::CITIES);
            let industry = self.dice.pick(&words::INDUSTRIES);
            let mut name = self.company_name(city, industry.nouns);
            for _ in 0..8 {
                if !names.contains(&name) {
                    break;
                }
                name = self.company_name(city, industry.nouns);
            }
            if names.contains(&name) {
                name = format!("{name} {}", city.name);
            }
            names.insert(name.clone());
            let domain = format!("{}.example", slug(&name));
            let company = Company {
                id: self.dice.id(at),
                email: self.dice.chance(80).then(|| format!("info@{domain}").into()),
                domain: self.dice.chance(92).then_some(domain),
                industry: self.dice.chance(95).then(|| industry.name.to_owned()),
                phone: self.dice.chance(85).then(|| self.phone().into()),
                address: Some(self.address(city)),
                owner_id: self.seller(),
                name,
                created_at: at,
                updated_at: at,
                version: 1,
            };
            self.company_cities.push(city);
            self.story.companies.push(company);
        }
    }

    fn company_name(&mut self, city: &City, nouns: &[&str]) -> String {
        let families = words::CULTURES[city.culture].family;
        let noun = *self.dice.pick(nouns);
        let name = match self.dice.below(10) {
            0..=3 => format!("{} {noun}", self.dice.pick(&words::ROOTS)),
            4..=6 => format!("{} {noun}", self.dice.pick(families)),
            7 => format!("{} & {}", self.dice.pick(families), self.dice.pick(families)),
            8 => format!("{} {noun}", city.name),
            _ => format!(
                "{} {} {noun}",
                self.dice.pick(&words::ROOTS),
                self.dice.pick(families)
            ),
        };
        if self.dice.chance(45) {
            format!("{name} {}", self.dice.pick(city.forms))
        } else {
            name
        }
    }

    fn address(&mut self, city: &City) -> PostalAddress {
        let number = self.dice.between(1, 180);
        let street = format!("{} {number}", self.dice.pick(city.streets));
        let postal_code: String = city
            .postal_code
            .chars()
            .map(|c| match c {
                '#' => char::from(b'0' + self.dice.below(10) as u8),
                '@' => char::from(b'A' + self.dice.below(26) as u8),
                other => other,
            })
            .collect();
        PostalAddress {
            street: Some(street),
            city: Some(city.name.to_owned()),
            region: city.region.map(str::to_owned),
            postal_code: (!postal_code.is_empty()).then_some(postal_code),
            country_code: Some(city.country.to_owned()),
        }
    }

    /// A number of the ranges that are set aside for stories, so that nobody's telephone rings.
    fn phone(&mut self) -> String {
        let last = self.dice.below(100);
        match self.dice.below(3) {
            0 => format!("+1 {}02 555 01{last:02}", self.dice.between(2, 9)),
            1 => format!("+44 20 7946 0{:03}", self.dice.below(1000)),
            _ => format!("+44 7700 900{:03}", self.dice.below(1000)),
        }
    }

    fn meet_contacts(&mut self, count: usize) {
        self.contact_times = self.moments(count, 1.2);
        let company_times = std::mem::take(&mut self.company_times);
        for n in 0..count {
            let worked = self.contact_times[n];
            let at = self.calendar.moment(worked);
            let company = if self.dice.chance(92) {
                self.known(&company_times, worked)
            } else {
                None
            };
            let culture = match company {
                Some(company) if self.dice.chance(65) => {
                    &words::CULTURES[self.company_cities[company].culture]
                }
                _ => self.dice.pick(&words::CULTURES),
            };
            let (given, family) = (*self.dice.pick(culture.given), *self.dice.pick(culture.family));
            let employer = company.map(|company| &self.story.companies[company]);
            let domain = match employer {
                Some(employer) => employer
                    .domain
                    .clone()
                    .unwrap_or_else(|| format!("{}.example", slug(&employer.name))),
                None => "mail.example".to_owned(),
            };
            let company_id = employer.map(|employer| employer.id);
            let owner_id = employer.and_then(|employer| employer.owner_id);
            let contact = Contact {
                id: self.dice.id(at),
                name: format!("{given} {family}"),
                email: self
                    .dice
                    .chance(94)
                    .then(|| format!("{}.{}@{domain}", slug(given), slug(family)).into()),
                phone: self.dice.chance(70).then(|| self.phone().into()),
                job_title: self
                    .dice
                    .chance(88)
                    .then(|| (*self.dice.pick(&words::JOB_TITLES)).to_owned()),
                company_id,
                lifecycle_stage: LifecycleStage::Lead,
                record_status: match self.dice.below(100) {
                    0..=90 => RecordStatus::Active,
                    91..=96 => RecordStatus::Inactive,
                    _ => RecordStatus::Archived,
                },
                source: self
                    .dice
                    .chance(85)
                    .then(|| (*self.dice.pick(&words::SOURCES)).to_owned()),
                rating: self.dice.chance(60).then(|| self.dice.between(1, 5) as i32),
                notes: self
                    .dice
                    .chance(20)
                    .then(|| (*self.dice.pick(&words::CONTACT_NOTES)).to_owned()),
                owner_id: owner_id.or_else(|| self.seller()),
                created_at: at,
                updated_at: at,
                version: 1,
            };
            self.employers.push(company);
            self.story.contacts.push(contact);
        }
        self.company_times = company_times;
    }

    fn sell(&mut self, count: usize) {
        let contact_times = std::mem::take(&mut self.contact_times);
        let moments = self.moments(count, 0.65);
        for worked in moments {
            let contact = self.known(&contact_times, worked);
            self.deal(worked, contact);
        }
        self.contact_times = contact_times;
    }

    /// A deal, from its beginning to its end or to the end of the year.
    fn deal(&mut self, began: Worked, contact: Option<usize>) {
        let cast = self.cast;
        let open: Vec<&PipelineStage> = cast.stages.iter().filter(|s| s.kind == StageKind::Open).collect();
        let of_kind = |kind| cast.stages.iter().find(|stage| stage.kind == kind);
        let (Some(won), Some(lost)) = (of_kind(StageKind::Won), of_kind(StageKind::Lost)) else {
            return;
        };
        let at = self.calendar.moment(began);
        let offer = *self.dice.pick(cast.trade.offers);
        let customer = contact.map(|contact| &self.story.contacts[contact]);
        let employer = contact.and_then(|contact| self.employers[contact]);
        let employer = employer.map(|company| &self.story.companies[company]);
        let contact_id = customer.map(|customer| customer.id);
        let company_id = employer.map(|employer| employer.id);
        let name = match employer
            .map(|employer| &employer.name)
            .or(customer.map(|it| &it.name))
        {
            Some(with) => format!("{with}: {offer}"),
            None => offer.to_owned(),
        };
        let owner_id = customer.and_then(|customer| customer.owner_id);
        let owner_id = if self.dice.chance(85) { owner_id } else { None }.or_else(|| self.seller());
        // Some come in knowing what they want.
        let mut step = usize::from(self.dice.chance(20)).min(open.len() - 1);
        let mut deal = Deal {
            id: self.dice.id(at),
            pipeline_id: open[step].pipeline_id,
            stage_id: open[step].id,
            name,
            amount: 0,
            currency_code: self.currency(),
            status: DealStatus::Open,
            win_probability: open[step].win_probability,
            contact_id,
            company_id,
            owner_id,
            expected_close_date: None,
            stage_entered_at: at,
            closed_at: None,
            lost_reason: None,
            next_step: None,
            description: self
                .dice
                .chance(35)
                .then(|| (*self.dice.pick(&words::DESCRIPTIONS)).to_owned()),
            created_at: at,
            updated_at: at,
            version: 1,
        };
        let mut beginning = deal.clone();
        let mut entry = deal.first_entry(owner_id);
        entry.id = self.dice.id(at);
        let mut stays = vec![(entry, None)];
        let mut now = began;
        let mut reopened = false;
        loop {
            let (days, go_on) = PACE[step.min(PACE.len() - 1)];
            let days = if deal.status == DealStatus::Open {
                days
            } else {
                20.0
            };
            now += ((self.dice.around(days, 0.8) * DAY as f64) as Worked).max(30 * MINUTE);
            if now >= YEAR {
                break;
            }
            let stage = match deal.status {
                DealStatus::Won => break,
                // A few come back, once.
                DealStatus::Lost if reopened || !self.dice.chance(3) => break,
                DealStatus::Lost => {
                    reopened = true;
                    open[step]
                }
                DealStatus::Open if self.dice.chance(go_on) => {
                    step += 1;
                    open.get(step).copied().unwrap_or(won)
                }
                DealStatus::Open if step > 0 && self.dice.chance(12) => {
                    step -= 1;
                    open[step]
                }
                DealStatus::Open => lost,
            };
            let reason =
                (stage.kind == StageKind::Lost).then(|| (*self.dice.pick(&words::LOST_REASONS)).to_owned());
            let by = if self.dice.chance(90) {
                owner_id
            } else {
                self.seller()
            };
            let at = self.calendar.moment(now);
            let (mut change, mut moved) = deal.move_to(stage, reason, at, by);
            change.id = self.dice.id(at);
            moved.stage_change_id = change.id;
            if let Some((last, _)) = stays.last_mut() {
                last.exited_at = Some(at);
            }
            stays.push((change, Some(moved)));
        }
        let worth = match deal.status {
            DealStatus::Open => WORTH[step.min(WORTH.len() - 1)],
            DealStatus::Won => 1.0,
            DealStatus::Lost => 0.8,
        };
        let amount = round(self.dice.around(cast.trade.median * worth, 0.75));
        let expected = self.expected_close(&deal, step);
        let next_step = (deal.status == DealStatus::Open && self.dice.chance(70)).then(|| {
            (*self
                .dice
                .pick(words::NEXT_STEPS[step.min(words::NEXT_STEPS.len() - 1)]))
            .to_owned()
        });
        for deal in [&mut beginning, &mut deal] {
            deal.amount = amount * 10_i64.pow(deal.currency_code.digits());
            deal.expected_close_date = expected.map(|at| at.date_naive());
            deal.next_step.clone_from(&next_step);
        }
        if let Some(contact) = contact {
            self.remember(contact, deal.status);
        }
        // Nothing more is heard of a deal once it is closed.
        self.deal_spans.push((began, now.min(YEAR)));
        self.offers.push(offer);
        self.customers.push(contact);
        self.story.stays.extend(stays);
        self.story.beginnings.push(beginning);
        self.story.deals.push(deal);
    }

    fn currency(&mut self) -> CurrencyCode {
        let own = self.cast.currency_code;
        match self.dice.below(100) {
            0..=85 => own,
            86..=94 => CurrencyCode::find("EUR").unwrap_or(own),
            _ => CurrencyCode::find("GBP").unwrap_or(own),
        }
    }

    /// The day that was hoped for: near the real one when the deal is closed, and mostly ahead when it is open.
    fn expected_close(&mut self, deal: &Deal, step: usize) -> Option<DateTime<Utc>> {
        if self.dice.chance(8) {
            return None;
        }
        let days = TimeDelta::days(match deal.closed_at {
            Some(_) => self.dice.between(-20, 12),
            None => self.dice.between(-10, 80 - 12 * step.min(4) as i64),
        });
        let near = deal.closed_at.unwrap_or_else(|| self.calendar.moment(YEAR));
        Some((near + days).max(deal.created_at))
    }

    /// What a deal makes of a contact: a customer once one is won, a prospect while one is open.
    fn remember(&mut self, contact: usize, status: DealStatus) {
        let stage = &mut self.story.contacts[contact].lifecycle_stage;
        *stage = match (status, *stage) {
            (DealStatus::Won, _) | (_, LifecycleStage::Customer) => LifecycleStage::Customer,
            (DealStatus::Open, _) | (_, LifecycleStage::Prospect) => LifecycleStage::Prospect,
            (DealStatus::Lost, _) => LifecycleStage::Closed,
        };
    }

    fn talk(&mut self, count: usize) {
        let mut interactions = Vec::with_capacity(count);
        for _ in 0..count {
            interactions.extend(self.interaction());
        }
        interactions.sort_by_key(|interaction| (interaction.created_at, interaction.id));
        self.story.interactions = interactions;
    }

    /// An interaction about a deal, a contact or a company, in this order of likelihood; none when there is nobody to
    /// talk to.
    fn interaction(&mut self) -> Option<Interaction> {
        let (deals, contacts) = (self.story.deals.len(), self.story.contacts.len());
        let companies = self.story.companies.len();
        let about = self.dice.below(100);
        let (deal, contact, company, (from, to)) = if deals > 0 && (about < 65 || contacts + companies == 0) {
            let n = self.dice.below(deals);
            (Some(n), self.customers[n], None, self.deal_spans[n])
        } else if contacts > 0 && (about < 93 || companies == 0) {
            let n = self.dice.below(contacts);
            (None, Some(n), None, (self.contact_times[n], YEAR))
        } else if companies > 0 {
            let n = self.dice.below(companies);
            (None, None, Some(n), (self.company_times[n], YEAR))
        } else {
            return None;
        };
        let company = company.or_else(|| contact.and_then(|contact| self.employers[contact]));
        let what = match deal {
            Some(deal) => self.offers[deal],
            None => self.dice.pick(self.cast.trade.offers),
        };
        let story = &self.story;
        let deal = deal.map(|deal| &story.deals[deal]);
        let contact = contact.map(|contact| &story.contacts[contact]);
        let company = company.map(|company| &story.companies[company]);
        let (deal_id, contact_id, company_id) = (
            deal.map(|it| it.id),
            contact.map(|it| it.id),
            company.map(|it| it.id),
        );
        let who = match (contact, company) {
            (Some(contact), _) => contact.name.split(' ').next().unwrap_or_default(),
            (None, Some(company)) => &company.name,
            (None, None) => "the customer",
        }
        .to_owned();
        let owner = (deal.and_then(|it| it.owner_id))
            .or(contact.and_then(|it| it.owner_id))
            .or(company.and_then(|it| it.owner_id));
        let is_open = deal.is_none_or(|deal| deal.status == DealStatus::Open);
        let owner = owner.or_else(|| self.seller());
        let planned = is_open && self.dice.chance(6);
        let kind = match self.dice.below(100) {
            0..=31 => InteractionKind::Call,
            32..=66 => InteractionKind::Email,
            67..=81 => InteractionKind::Meeting,
            _ if planned => InteractionKind::Meeting,
            82..=91 => InteractionKind::Chat,
            _ => InteractionKind::Note,
        };
        let (talk, minutes): (&Talk, _) = match kind {
            InteractionKind::Call => (&words::CALL, (3, 30)),
            InteractionKind::Email => (&words::EMAIL, (0, 0)),
            InteractionKind::Meeting => (&words::MEETING, (30, 90)),
            InteractionKind::Chat => (&words::CHAT, (2, 20)),
            InteractionKind::Note => (&words::NOTE, (0, 0)),
        };
        let is_note = kind == InteractionKind::Note;
        // Time enough for the longest meeting before the year is over.
        let to = to.min(YEAR - 2 * 60 * MINUTE).max(from);
        let worked = from + ((to - from) as f64 * self.dice.unit()) as Worked;
        let (created_at, occurred_at, completed_at) = if planned {
            // Most lie ahead; a few should have happened by now.
            let ahead = self.dice.between(-3 * DAY, 20 * DAY);
            let noticed = (YEAR - self.dice.between(0, 10 * DAY)).clamp(from, to);
            (
                self.calendar.moment(noticed),
                self.calendar.moment((YEAR + ahead).max(noticed)),
                None,
            )
        } else {
            let occurred = self.calendar.moment(worked);
            let done = occurred + TimeDelta::minutes(self.dice.between(minutes.0, minutes.1));
            (done, occurred, Some(done))
        };
        let fill = |text: &str| text.replace("{who}", &who).replace("{what}", what);
        let is_meeting = kind == InteractionKind::Meeting;
        Some(Interaction {
            id: self.dice.id(created_at),
            kind,
            direction: (!is_note).then(|| {
                if self.dice.chance(35) {
                    InteractionDirection::Inbound
                } else {
                    InteractionDirection::Outbound
                }
            }),
            channel: (!is_note).then(|| (*self.dice.pick(talk.channels)).to_owned()),
            subject: fill(self.dice.pick::<&str>(talk.subjects)),
            content: (is_note || self.dice.chance(40))
                .then(|| (*self.dice.pick(&words::CONTENTS)).to_owned()),
            outcome: (!planned && !is_note && self.dice.chance(75))
                .then(|| (*self.dice.pick(talk.outcomes)).to_owned()),
            next_action: self
                .dice
                .chance(30)
                .then(|| (*self.dice.pick(&words::NEXT_ACTIONS)).to_owned()),
            scheduled_at: (planned || is_meeting).then_some(occurred_at),
            occurred_at,
            completed_at,
            contact_id,
            company_id,
            deal_id,
            created_by_id: owner,
            created_at,
            updated_at: created_at,
            version: 1,
        })
    }
}

/// Rounds an amount as people do: two digits that count, and sometimes a five.
fn round(amount: f64) -> i64 {
    let amount = amount.clamp(100.0, 1e9) as i64;
    let unit = 10_i64.pow(amount.ilog10().saturating_sub(1)) / 2;
    let unit = unit.max(50);
    (amount + unit / 2) / unit * unit
}

/// A name as it stands in an e-mail address: small Latin letters and digits, the rest as hyphens or left out.
fn slug(name: &str) -> String {
    let mut slug = String::with_capacity(name.len());
    for c in name.chars().flat_map(char::to_lowercase) {
        match latin(c) {
            Some(letters) => slug.push_str(letters),
            None if c.is_ascii_alphanumeric() => slug.push(c),
            None if matches!(c, ' ' | '-' | '&') && !slug.is_empty() && !slug.ends_with('-') => {
                slug.push('-')
            }
            None => {}
        }
    }
    slug.truncate(slug.trim_end_matches('-').len());
    slug
}

/// The Latin letters that people write for a letter with marks, among those that our names have.
fn latin(c: char) -> Option<&'static str> {
    Some(match c {
        'á' | 'à' | 'ã' | 'â' | 'ą' | 'ạ' | 'ả' | 'ă' | 'ầ' | 'å' => "a",
        'ä' => "ae",
        'ç' | 'ć' => "c",
        'đ' => "d",
        'é' | 'è' | 'ê' | 'ë' | 'ę' | 'ễ' | 'ế' => "e",
        'ğ' => "g",
        'í' | 'ì' | 'î' | 'ï' | 'ı' => "i",
        'ł' => "l",
        'ñ' | 'ń' => "n",
        'ó' | 'ô' | 'õ' | 'ọ' | 'ồ' | 'ỗ' | 'ơ' | 'ø' => "o",
        'ö' => "oe",
        'ś' | 'ş' => "s",
        'ß' => "ss",
        'ú' | 'ũ' | 'ư' | 'ù' => "u",
        'ü' => "ue",
        'ź' | 'ż' => "z",
        _ => return None,
    })
}
