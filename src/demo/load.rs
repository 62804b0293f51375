//! Writing a story into a tenant: one transaction, in large batches, with its history in the order in which it happened.

use chrono::{DateTime, Utc};

use super::Report;
use super::calendar::Calendar;
use super::dice::Dice;
use super::story::{Cast, Scope, Story};
use super::words::Trade;
use crate::app::App;
use crate::auth::Role;
use crate::crm::{companies, contacts, deals, interactions, pipelines};
use crate::db::directory::{self, Account};
use crate::db::id::Id;
use crate::error::{Error, Result};
use crate::events::Work;
use crate::founding;
use crate::graphql::scalar::CurrencyCode;
use crate::identity::{self, NewTenant, User};

/// Rows of one statement.
const ROWS: usize = 2_000;

/// A person of a demo tenant: name, e-mail address, role.
pub struct Person {
    pub name: String,
    pub email: String,
    pub role: Role,
}

/// A tenant to be made up.
pub struct Blueprint<'a> {
    pub name: String,
    pub currency_code: CurrencyCode,
    pub trade: &'a Trade,
    /// The first founds the tenant and is its admin.
    pub people: Vec<Person>,
    pub scope: Scope,
}

/// Something of a story that the history tells, by its number in the story. In this order when the time is the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Company(usize),
    Contact(usize),
    Deal(usize),
    Stay(usize),
    Interaction(usize),
}

/// Makes a tenant up and writes it, all or nothing.
///
/// # Errors
/// As a user error on `email` when an address has an account already.
pub async fn load(
    app: &App,
    blueprint: Blueprint<'_>,
    password_hash: &str,
    calendar: &Calendar,
    dice: &mut Dice,
    report: &(dyn Fn(Report) + Send + Sync),
) -> Result<()> {
    let founded_at = calendar.moment(-1);
    let mut people = blueprint.people.into_iter();
    let founder = people
        .next()
        .ok_or_else(|| Error::internal("a tenant without people"))?;
    let new = NewTenant {
        name: blueprint.name,
        currency_code: blueprint.currency_code,
        user_name: founder.name,
        email: founder.email,
        password_hash: password_hash.to_owned(),
    };
    let (mut work, _, admin) = founding::found_tenant_at(&app.db, &app.hub, new, founded_at).await?;
    let mut users = vec![admin];
    for person in people {
        users.push(join(&mut work, person, password_hash).await?);
    }
    let first = pipelines::first_stage(&work, None, None).await?;
    let stages = pipelines::stages_of(&work, first.pipeline_id).await?;
    let cast = Cast {
        sellers: sellers(&users),
        stages,
        currency_code: blueprint.currency_code,
        trade: blueprint.trade,
    };
    let story = Story::write(blueprint.scope, &cast, calendar, dice);
    write(&work, &story, report).await?;
    // A link of the chain for each record made up would take twice as long as all the rest.
    work.sum_up("DEMO_DATA_LOADED");
    tell(&mut work, &story, report).await?;
    work.finish().await?;
    Ok(())
}

/// Adds a user with an account of their own.
async fn join(work: &mut Work, person: Person, password_hash: &str) -> Result<User> {
    let account = Account {
        id: uuid::Uuid::now_v7(),
        email: person.email.clone(),
        password_hash: password_hash.to_owned(),
        created_at: work.now(),
    };
    directory::insert_account(work, &account).await?;
    let user = User {
        id: Id::generate(),
        name: person.name,
        email: person.email,
        role: person.role,
        custom_role_id: None,
        is_active: true,
        created_at: work.now(),
        updated_at: work.now(),
        version: 1,
    };
    identity::insert_user(work, &user, account.id).await?;
    work.record(user.id, "CREATED", &user)?;
    Ok(user)
}

/// Sales people own the most, those who lead them some, and the others nothing.
fn sellers(users: &[User]) -> Vec<Id<User>> {
    let share = |role| match role {
        Role::Sales => 3,
        Role::Admin | Role::Manager => 1,
        Role::Marketing | Role::Viewer | Role::Custom => 0,
    };
    users
        .iter()
        .flat_map(|user| std::iter::repeat_n(user.id, share(user.role)))
        .collect()
}

/// Writes the records, what others refer to first.
async fn write(work: &Work, story: &Story, report: &(dyn Fn(Report) + Send + Sync)) -> Result<()> {
    for rows in story.companies.chunks(ROWS) {
        companies::insert_all(work, rows).await?;
        report(Report::Records(rows.len()));
    }
    for rows in story.contacts.chunks(ROWS) {
        contacts::insert_all(work, rows).await?;
        report(Report::Records(rows.len()));
    }
    for rows in story.deals.chunks(ROWS) {
        deals::insert_all(work, rows).await?;
        report(Report::Records(rows.len()));
    }
    for stays in story.stays.chunks(ROWS) {
        let rows: Vec<_> = stays.iter().map(|(stay, _)| stay.clone()).collect();
        deals::insert_all_stage_changes(work, &rows).await?;
    }
    for rows in story.interactions.chunks(ROWS) {
        interactions::insert_all(work, rows).await?;
        report(Report::Records(rows.len()));
    }
    Ok(())
}

/// Appends the story to the history, in the order in which it happened.
async fn tell(work: &mut Work, story: &Story, report: &(dyn Fn(Report) + Send + Sync)) -> Result<()> {
    let mut happenings: Vec<(DateTime<Utc>, Happening)> = Vec::new();
    let numbered = |n: usize, at, happening: fn(usize) -> Happening| (at, happening(n));
    let (companies, contacts) = (
        story.companies.iter().enumerate(),
        story.contacts.iter().enumerate(),
    );
    happenings.extend(companies.map(|(n, it)| numbered(n, it.created_at, Happening::Company)));
    happenings.extend(contacts.map(|(n, it)| numbered(n, it.created_at, Happening::Contact)));
    let (deals, stays) = (story.deals.iter().enumerate(), story.stays.iter().enumerate());
    happenings.extend(deals.map(|(n, it)| numbered(n, it.created_at, Happening::Deal)));
    // The first stay of a deal has no event of its own: it begins with the deal.
    let stays = stays.filter(|(_, (_, moved))| moved.is_some());
    happenings.extend(stays.map(|(n, (it, _))| numbered(n, it.entered_at, Happening::Stay)));
    let interactions = story.interactions.iter().enumerate();
    happenings.extend(interactions.map(|(n, it)| numbered(n, it.created_at, Happening::Interaction)));
    happenings.sort_unstable();
    for batch in happenings.chunks(ROWS) {
        let mut records = batch.len();
        for (at, happening) in batch {
            let mut as_user = |user: Option<Id<User>>| work.go_on_as(user.map(Id::uuid), *at);
            match *happening {
                Happening::Company(n) => {
                    let company = &story.companies[n];
                    as_user(company.owner_id);
                    work.record(company.id, "CREATED", company)?;
                }
                Happening::Contact(n) => {
                    let contact = &story.contacts[n];
                    as_user(contact.owner_id);
                    work.record(contact.id, "CREATED", contact)?;
                }
                Happening::Deal(n) => {
                    let deal = &story.beginnings[n];
                    as_user(deal.owner_id);
                    work.record(deal.id, "CREATED", deal)?;
                }
                Happening::Stay(n) => {
                    let (stay, moved) = &story.stays[n];
                    as_user(stay.changed_by_id);
                    work.record(stay.deal_id, "STAGE_CHANGED", moved)?;
                    records -= 1;
                }
                Happening::Interaction(n) => {
                    let interaction = &story.interactions[n];
                    as_user(interaction.created_by_id);
                    work.record(interaction.id, "CREATED", interaction)?;
                }
            }
        }
        work.append().await?;
        report(Report::Records(records));
    }
    Ok(())
}
