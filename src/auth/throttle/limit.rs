//! Policies and their limits.

use std::time::Duration;

/// What is bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Policy {
    /// Requests of a client's address.
    Requests,
    /// Points that the operations of a user or an API key cost.
    UserCost,
    /// Points that the operations of a tenant cost.
    TenantCost,
    /// Companies and contacts that a user creates.
    CreateClient,
    /// Lists of companies and contacts that a user reads.
    ListClients,
    /// Interactions that a user records.
    RecordCommunication,
    /// Interactions, and lists of them, that a user reads.
    ReadCommunications,
    /// Failures of a client's address to sign in.
    SignInNetwork,
    /// Failures to sign in to an account.
    SignInAccount,
    /// Failures to give a second factor, by account.
    Code,
    /// Messages for a new password, by account and by address; changes of a password, by user.
    PasswordReset,
    /// Messages to verify an address, by account and by address.
    Verification,
    /// People that a tenant invites or adds.
    Invitation,
    /// Attempts of a client's address to use a token out of a message.
    MailedToken,
    /// Exchanges of refresh tokens, by session or by address.
    Refresh,
    /// Accounts that are signed up from a client's address.
    SignUp,
    /// Steps of signing in by way of another provider, of which there are three, from a client's address.
    ProviderSignIn,
    /// Entries in audit trails that tell of refused sign-ins, by account and way in.
    Refusal,
}

/// How a policy counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Holds so many, and fills up evenly.
    Bucket,
    /// So many failures in a row are free, then the waits grow.
    Failures,
}

/// So many in so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub count: u32,
    pub per: Duration,
}

impl Limit {
    /// What comes back in a second, rounded down.
    pub fn a_second(&self) -> u32 {
        u32::try_from(u128::from(self.count) * 1000 / self.per.as_millis().max(1)).unwrap_or(u32::MAX)
    }

    pub(super) fn per_millis(&self) -> u64 {
        u64::try_from(self.per.as_millis()).unwrap_or(u64::MAX).max(1)
    }
}

const fn per(count: u32, seconds: u64) -> Limit {
    Limit {
        count,
        per: Duration::from_secs(seconds),
    }
}

const MINUTE: u64 = 60;
const QUARTER: u64 = 15 * MINUTE;
const HOUR: u64 = 60 * MINUTE;

impl Policy {
    /// Every policy, in the order of their numbers.
    pub const ALL: [Self; 18] = [
        Self::Requests,
        Self::UserCost,
        Self::TenantCost,
        Self::CreateClient,
        Self::ListClients,
        Self::RecordCommunication,
        Self::ReadCommunications,
        Self::SignInNetwork,
        Self::SignInAccount,
        Self::Code,
        Self::PasswordReset,
        Self::Verification,
        Self::Invitation,
        Self::MailedToken,
        Self::Refresh,
        Self::SignUp,
        Self::ProviderSignIn,
        Self::Refusal,
    ];

    /// Its name in the settings and in headers.
    pub fn name(self) -> &'static str {
        self.definition().0
    }

    /// How it counts.
    pub fn kind(self) -> Kind {
        match self {
            Self::SignInNetwork | Self::SignInAccount | Self::Code => Kind::Failures,
            _ => Kind::Bucket,
        }
    }

    /// The limit unless the settings have another.
    pub fn default_limit(self) -> Limit {
        self.definition().1
    }

    /// Whether its keys stand for where somebody is rather than who.
    pub(super) fn counts_networks(self) -> bool {
        matches!(self, Self::SignInNetwork)
    }

    fn definition(self) -> (&'static str, Limit) {
        match self {
            Self::Requests => ("requests", per(6_000, MINUTE)),
            Self::UserCost => ("user-cost", per(120_000, MINUTE)),
            Self::TenantCost => ("tenant-cost", per(600_000, MINUTE)),
            Self::CreateClient => ("create-client", per(100, HOUR)),
            Self::ListClients => ("list-clients", per(1_000, HOUR)),
            Self::RecordCommunication => ("record-communication", per(200, HOUR)),
            Self::ReadCommunications => ("read-communications", per(500, HOUR)),
            Self::SignInNetwork => ("sign-in-address", per(5, QUARTER)),
            Self::SignInAccount => ("sign-in-account", per(5, QUARTER)),
            Self::Code => ("code", per(5, QUARTER)),
            Self::PasswordReset => ("password-reset", per(5, HOUR)),
            Self::Verification => ("verification", per(5, HOUR)),
            Self::Invitation => ("invitation", per(100, HOUR)),
            Self::MailedToken => ("mailed-token", per(30, QUARTER)),
            Self::Refresh => ("refresh", per(300, QUARTER)),
            Self::SignUp => ("sign-up", per(20, HOUR)),
            Self::ProviderSignIn => ("provider-sign-in", per(300, QUARTER)),
            Self::Refusal => ("refusal", per(20, QUARTER)),
        }
    }
}

/// The default limits, changed as the settings say: `name=count/time` or `name=off`, the later over the earlier; the name
/// `all` means every policy.
pub(super) fn limits(settings: &[String]) -> Result<[Option<Limit>; Policy::ALL.len()], String> {
    let mut limits = Policy::ALL.map(|policy| Some(policy.default_limit()));
    for setting in settings {
        let setting = setting.trim();
        if setting.is_empty() {
            continue;
        }
        let unreadable = || {
            format!(
                "DEALSTREAM_LIMITS: `{setting}` is not a limit, which is written as create-client=100/1h or create-client=off."
            )
        };
        let (name, value) = setting.split_once('=').ok_or_else(unreadable)?;
        let value = value.trim();
        let limit = match value {
            "off" => None,
            _ => Some(read(value).ok_or_else(unreadable)?),
        };
        match name.trim() {
            "all" => limits.fill(limit),
            name => {
                let policy = Policy::ALL.into_iter().find(|policy| policy.name() == name);
                let policy = policy.ok_or_else(|| {
                    let names = Policy::ALL.map(Policy::name).join(", ");
                    format!("DEALSTREAM_LIMITS: there is no limit `{name}`; there are {names}.")
                })?;
                limits[policy as usize] = limit;
            }
        }
    }
    Ok(limits)
}

/// `100/1h`
fn read(text: &str) -> Option<Limit> {
    let (count, time) = text.split_once('/')?;
    let count = count.trim().parse().ok().filter(|count| *count > 0)?;
    let time = time.trim();
    let unit = time.chars().next_back()?;
    let number = time.strip_suffix(unit)?;
    let unit = match unit {
        's' => 1,
        'm' => MINUTE,
        'h' => HOUR,
        _ => return None,
    };
    let number: u64 = if number.is_empty() {
        1
    } else {
        number.parse().ok()?
    };
    let seconds = number.checked_mul(unit)?;
    (1..=7 * 24 * HOUR)
        .contains(&seconds)
        .then(|| per(count, seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits_of(settings: &[&str]) -> Result<[Option<Limit>; Policy::ALL.len()], String> {
        let settings: Vec<String> = settings.iter().map(|it| (*it).to_owned()).collect();
        limits(&settings)
    }

    #[test]
    fn settings_change_the_limits_one_by_one_and_all_at_once() {
        let limits = limits_of(&["create-client=500/30m", " requests=off "]).expect("they can be read");
        assert_eq!(limits[Policy::CreateClient as usize], Some(per(500, 1800)));
        assert_eq!(limits[Policy::Requests as usize], None);
        assert_eq!(
            limits[Policy::ListClients as usize],
            Some(Policy::ListClients.default_limit())
        );
        let off = limits_of(&["all=off", "code=3/1m"]).expect("they can be read");
        assert_eq!(off.iter().flatten().count(), 1);
        for (number, policy) in Policy::ALL.into_iter().enumerate() {
            assert_eq!(policy as usize, number, "{policy:?} is not in its place");
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_the_reason() {
        for wrong in [
            "x",
            "requests=",
            "requests=1",
            "requests=0/1m",
            "requests=1/",
            "requests=1/1d",
            "requests=-1/1m",
            "requests=1/0s",
            "requests=1/99999999h",
            "requests=1/ü",
        ] {
            let problem = limits_of(&[wrong]).expect_err(wrong);
            assert!(problem.contains(wrong), "{problem}");
        }
        let problem = limits_of(&["nothing=1/1m"]).expect_err("there is none");
        assert!(problem.contains("create-client"), "{problem}");
    }
}
