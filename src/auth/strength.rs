//! Which passwords are taken: long ones that nobody guesses first. No rules about digits and signs, which make passwords
//! predictable (NIST SP 800-63B, 5.1.1.2).

use std::collections::HashSet;

use super::password::MAX_BYTES;
use crate::error::ProblemCode;

/// Characters of a password at least, whatever a tenant says.
pub const MIN_LENGTH: usize = 10;

/// What others can guess with: characters that are left of a password without it at least.
const LEFT: usize = 6;

/// A word that is shorter is in many a good password by chance.
const SHORTEST_WORD: usize = 4;

/// Passwords that are tried first, in lower case, of those that are long enough. Digits at the end do not matter.
const COMMON: &str = "
    1234567890 0123456789 12345678910 1234567891 123456789a 0987654321 9876543210 1029384756 1122334455 1212121212
    1q2w3e4r5t 1q2w3e4r5t6y 1qaz2wsx3edc qazwsxedcrfv qwertyuiop qwertyuiop[] qwerty1234 qwerty12345 qwerty123456
    asdfghjkl; asdfghjkl1 zxcvbnm123 zaq12wsxcde3 1234qwerasdf qwer1234qwer abcdefghij abcdefghijk abcd123456 abc1234567
    password12 password123 password1234 password12345 password01 password2024 password2025 passwordpassword mypassword
    passw0rd123 p@ssw0rd123 p@ssword123 pa55word123 motdepasse hunter2hunter2 letmein123 letmeinnow iloveyou12 iloveyou123
    iloveyousomuch iloveyou2 ihateyou123 trustno1trustno1 welcome123 welcome1234 welcome2024 welcome2025 changeme123
    changemenow administrator admin12345 admin123456 adminadmin rootroot12 superman123 spiderman1 batman12345 football123
    baseball123 basketball liverpool1 manchester chocolate1 strawberry butterfly1 sunshine123 princess123 starwars123
    pokemon123 dragon12345 monkey12345 jordan23jordan michael123 charlie123 master12345 computer123 internet123 business123
    secret12345 topsecret1 opensesame correcthorsebatterystaple dealstream1 salesforce1 testtest12 testing123 test123456
    demo123456 guest12345 company123 summer2024 summer2025 winter2024 winter2025 spring2025 autumn2025 september1
";

/// What a password must be.
#[derive(Debug, Clone)]
pub struct Rules {
    min_length: usize,
    /// What others know of the person, in lower case, letters and digits only.
    words: Vec<String>,
}

impl Default for Rules {
    fn default() -> Self {
        Self::new(0, &[])
    }
}

/// Letters and digits in lower case.
fn plain(text: &str) -> String {
    let letters = text.chars().filter(|c| c.is_alphanumeric());
    letters.flat_map(char::to_lowercase).collect()
}

impl Rules {
    /// So many characters at least, and not made of these names and addresses.
    pub fn new(min_length: usize, known: &[&str]) -> Self {
        let mut words: Vec<String> = Vec::new();
        for text in known {
            words.push(plain(text));
            words.extend(text.split('@').next().map(plain));
            words.extend(text.split(|c: char| !c.is_alphanumeric()).map(plain));
        }
        words.retain(|word| word.chars().count() >= SHORTEST_WORD);
        // The longest first: what is left of a password is what is left of all of them.
        words.sort_by_key(|word| std::cmp::Reverse(word.len()));
        words.dedup();
        Self {
            min_length: min_length.max(MIN_LENGTH),
            words,
        }
    }

    /// Why a password is not taken.
    ///
    /// # Errors
    /// The reason, for programs and for people.
    pub fn check(&self, password: &str) -> Result<(), (ProblemCode, String)> {
        if password.len() > MAX_BYTES {
            let message = format!("A password has {MAX_BYTES} bytes at most.");
            return Err((ProblemCode::TooLong, message));
        }
        if password.chars().count() < self.min_length {
            let message = format!("A password has {} characters at least.", self.min_length);
            return Err((ProblemCode::Invalid, message));
        }
        let refuse = |why: &str| Err((ProblemCode::Invalid, why.to_owned()));
        let different: HashSet<char> = password.chars().collect();
        if different.len() < 4 || is_common(password) {
            return refuse("This password is among those that are guessed first.");
        }
        let whole = plain(password);
        let left = self
            .words
            .iter()
            .fold(whole.clone(), |left, word| left.replace(word, ""));
        // What has hardly any letters or digits to begin with is another matter.
        if left != whole && left.chars().count() < LEFT {
            return refuse("This password is made of names or addresses that others know.");
        }
        Ok(())
    }
}

fn is_common(password: &str) -> bool {
    let lower = password.to_lowercase();
    let without_digits = lower.trim_end_matches(|c: char| c.is_ascii_digit() || "!.?".contains(c));
    COMMON.split_whitespace().any(|common| {
        common == lower
            || !without_digits.is_empty()
                && common.trim_end_matches(|c: char| c.is_ascii_digit()) == without_digits
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_guessed_first_is_refused() {
        let rules = Rules::default();
        for weak in [
            "1234567890",
            "Password123",
            "PASSWORD2031!",
            "aaaaaaaaaaaa",
            "ababababababab",
            "qwertyuiop",
            "Welcome99999",
        ] {
            assert!(rules.check(weak).is_err(), "{weak}");
        }
        for good in [
            "correct horse battery",
            "a first password",
            "\0\u{1}\u{7f} \n\t ' \" 🏳",
            "žluťoučký kůň",
        ] {
            assert_eq!(rules.check(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn what_others_know_of_a_person_makes_no_password() {
        let rules = Rules::new(
            0,
            &[
                "Ada Lovelace",
                "ada.lovelace@engines.example",
                "Analytical Engines Ltd",
            ],
        );
        for weak in [
            "AdaLovelace",
            "lovelace12345",
            "ada.lovelace@engines.example",
            "Analytical!",
            "engines-2025",
            "Lovelace+Engines",
        ] {
            assert!(rules.check(weak).is_err(), "{weak}");
        }
        for good in ["lovelace wrote the first program", "number 5 is alive"] {
            assert_eq!(rules.check(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn a_tenant_can_ask_for_more_but_not_for_less() {
        assert!(Rules::new(3, &[]).check("short one").is_err());
        assert!(Rules::new(20, &[]).check("nineteen characters").is_err());
        assert!(Rules::new(20, &[]).check("ä twenty characters!").is_ok());
        let long = "x1y2".repeat(257);
        assert_eq!(
            Rules::default().check(&long).map_err(|(code, _)| code),
            Err(ProblemCode::TooLong)
        );
    }
}
