//! What the data are made of: names, places, trades, and what people write after a call.

/// A language region's names.
pub struct Culture {
    pub given: &'static [&'static str],
    pub family: &'static [&'static str],
}

/// A city, with whose country a company has its legal form and its people most of their names.
pub struct City {
    pub name: &'static str,
    pub region: Option<&'static str>,
    pub country: &'static str,
    /// `#` stands for any digit, `@` for any letter.
    pub postal_code: &'static str,
    pub streets: &'static [&'static str],
    pub forms: &'static [&'static str],
    /// Index into [`CULTURES`].
    pub culture: usize,
}

/// What a company does, with the nouns that its name may have.
pub struct Industry {
    pub name: &'static str,
    pub nouns: &'static [&'static str],
}

/// What a tenant sells.
pub struct Trade {
    pub offers: &'static [&'static str],
    /// Median amount of a deal, in whole units of the tenant's currency.
    pub median: f64,
    pub tenants: &'static [&'static str],
}

/// A kind of interaction with its texts: `{who}` is the contact's first name or the company, `{what}` the offer.
pub struct Talk {
    pub channels: &'static [&'static str],
    pub subjects: &'static [&'static str],
    pub outcomes: &'static [&'static str],
}

pub const CULTURES: [Culture; 16] = [
    Culture {
        given: &[
            "Olivia", "James", "Amelia", "Oliver", "Grace", "Henry", "Charlotte", "William", "Sophie",
            "Thomas", "Emily", "George", "Hannah", "Edward", "Lucy", "Samuel", "Claire", "Daniel", "Megan",
            "Benjamin",
        ],
        family: &[
            "Smith", "Taylor", "Walker", "Bennett", "Hughes", "Foster", "Collins", "Parker", "Morgan", "Reed",
            "Cooper", "Bailey", "Turner", "Brooks", "Sullivan", "Hayes", "Ward", "Fletcher", "Lawson",
            "Whitaker",
        ],
    },
    Culture {
        given: &[
            "Lucía", "Mateo", "Sofía", "Santiago", "Valentina", "Diego", "Camila", "Javier", "Elena",
            "Andrés", "Carmen", "Pablo", "Isabel", "Álvaro", "Marta", "Rafael",
        ],
        family: &[
            "García", "Fernández", "Rodríguez", "Morales", "Navarro", "Castillo", "Ortega", "Vargas",
            "Herrera", "Molina", "Ibáñez", "Peña", "Romero", "Delgado", "Campos", "Núñez",
        ],
    },
    Culture {
        given: &[
            "Anna", "Lukas", "Lena", "Felix", "Katharina", "Jonas", "Greta", "Matthias", "Jürgen", "Sabine",
            "Moritz", "Heike", "Florian", "Ursula", "Tobias", "Birgit",
        ],
        family: &[
            "Müller", "Schneider", "Weber", "Hoffmann", "Krüger", "Vogel", "Lehmann", "Schröder", "Köhler",
            "Brandt", "Winkler", "Groß", "Albrecht", "Böhm", "Seidel", "Hartmann",
        ],
    },
    Culture {
        given: &[
            "Camille", "Hugo", "Léa", "Louis", "Chloé", "Antoine", "Manon", "Étienne", "Juliette", "Benoît",
            "Margaux", "François", "Inès", "Mathieu", "Élodie", "Thibault",
        ],
        family: &[
            "Martin", "Dubois", "Moreau", "Lefèvre", "Girard", "Rousseau", "Fontaine", "Mercier", "Chevalier",
            "Gauthier", "Perrin", "Marchand", "Lemoine", "Aubert", "Bouchard", "Renaud",
        ],
    },
    Culture {
        given: &[
            "Giulia", "Lorenzo", "Chiara", "Matteo", "Francesca", "Alessandro", "Martina", "Davide", "Elisa",
            "Federico", "Silvia", "Riccardo", "Paola", "Stefano",
        ],
        family: &[
            "Rossi", "Bianchi", "Ferrari", "Esposito", "Ricci", "Marino", "Conti", "Bruno", "Gallo",
            "Lombardi", "Moretti", "Barbieri", "Rinaldi", "Caruso",
        ],
    },
    Culture {
        given: &[
            "Zofia", "Jakub", "Małgorzata", "Piotr", "Agnieszka", "Łukasz", "Katarzyna", "Tomasz", "Ewa",
            "Michał", "Joanna", "Krzysztof", "Barbara", "Paweł",
        ],
        family: &[
            "Nowak", "Kowalski", "Wiśniewski", "Wójcik", "Kamiński", "Lewandowski", "Zieliński", "Szymański",
            "Woźniak", "Dąbrowski", "Kozłowski", "Mazur", "Krawczyk", "Pawlak",
        ],
    },
    Culture {
        given: &[
            "Priya", "Arjun", "Ananya", "Rohan", "Kavya", "Vikram", "Meera", "Aditya", "Deepa", "Sanjay",
            "Lakshmi", "Rahul", "Nisha", "Karthik", "Sunita", "Imran",
        ],
        family: &[
            "Sharma", "Patel", "Iyer", "Reddy", "Gupta", "Nair", "Singh", "Mehta", "Banerjee", "Kapoor",
            "Desai", "Rao", "Chatterjee", "Menon", "Joshi", "Khan",
        ],
    },
    Culture {
        given: &[
            "Wei", "Xiu", "Jun", "Mei", "Hao", "Lan", "Chen", "Ying", "Ming", "Fang", "Tao", "Jing", "Bo",
            "Hui", "Lei", "Yan",
        ],
        family: &[
            "Wang", "Li", "Zhang", "Liu", "Yang", "Huang", "Zhao", "Wu", "Zhou", "Xu", "Sun", "Ma", "Zhu",
            "Gao", "Lin", "Luo",
        ],
    },
    Culture {
        given: &[
            "Yuki", "Haruto", "Sakura", "Ren", "Aiko", "Takumi", "Emi", "Kenji", "Naomi", "Daiki", "Hana",
            "Shin", "Mio", "Kazuo",
        ],
        family: &[
            "Sato", "Suzuki", "Takahashi", "Tanaka", "Watanabe", "Ito", "Yamamoto", "Nakamura", "Kobayashi",
            "Kato", "Yoshida", "Yamada", "Mori", "Ishikawa",
        ],
    },
    Culture {
        given: &[
            "Ji-woo", "Min-jun", "Seo-yeon", "Hyun-woo", "Ha-eun", "Dong-hyun", "Soo-jin", "Tae-yang",
            "Eun-ji", "Sang-min",
        ],
        family: &["Kim", "Lee", "Park", "Choi", "Jung", "Kang", "Cho", "Yoon", "Jang", "Lim", "Han", "Shin"],
    },
    Culture {
        given: &[
            "Layla", "Omar", "Fatima", "Yusuf", "Amira", "Khalid", "Noor", "Tariq", "Salma", "Hassan",
            "Rania", "Karim", "Zainab", "Samir",
        ],
        family: &[
            "Haddad", "Mansour", "Farouk", "Nasser", "Khoury", "Rahman", "Aziz", "Saleh", "Hamdan", "Bakri",
            "Darwish", "Sabbagh",
        ],
    },
    Culture {
        given: &[
            "Chidi", "Ngozi", "Emeka", "Adaeze", "Tunde", "Folake", "Kwame", "Akosua", "Wanjiru", "Kamau",
            "Amina", "Sipho", "Thandiwe", "Babatunde",
        ],
        family: &[
            "Okafor", "Adeyemi", "Okonkwo", "Balogun", "Mensah", "Boateng", "Mwangi", "Otieno", "Dlamini",
            "Nkosi", "Diallo", "Abara", "Eze", "Afolabi",
        ],
    },
    Culture {
        given: &[
            "Beatriz", "João", "Mariana", "Gabriel", "Larissa", "Thiago", "Fernanda", "Rodrigo", "Letícia",
            "Caio", "Inês", "Tiago", "Patrícia", "Vinícius",
        ],
        family: &[
            "Silva", "Santos", "Oliveira", "Souza", "Pereira", "Costa", "Carvalho", "Almeida", "Ribeiro",
            "Gonçalves", "Araújo", "Magalhães", "Teixeira", "Cardoso",
        ],
    },
    Culture {
        given: &[
            "Astrid", "Erik", "Freja", "Søren", "Ingrid", "Lars", "Elin", "Åsa", "Magnus", "Kirsten", "Björn",
            "Sigrid", "Anders", "Linnea", "Jørgen", "Aino",
        ],
        family: &[
            "Andersson", "Johansen", "Nilsson", "Hansen", "Lindqvist", "Sørensen", "Bergström", "Larsen",
            "Holm", "Dahl", "Ekström", "Nygård", "Virtanen", "Sjöberg",
        ],
    },
    Culture {
        given: &[
            "Elif", "Mehmet", "Zeynep", "Emre", "Ayşe", "Can", "Defne", "Burak", "Selin", "Oğuz", "Gül",
            "Kerem",
        ],
        family: &[
            "Yılmaz", "Kaya", "Demir", "Çelik", "Şahin", "Aydın", "Arslan", "Doğan", "Koç", "Öztürk", "Polat",
            "Güneş",
        ],
    },
    Culture {
        given: &[
            "Linh", "Minh", "Thảo", "Quang", "Hương", "Tuấn", "Mai", "Dũng", "Anh", "Phúc", "Ngọc", "Long",
        ],
        family: &["Nguyễn", "Trần", "Lê", "Phạm", "Hoàng", "Phan", "Vũ", "Đặng", "Bùi", "Đỗ", "Hồ", "Ngô"],
    },
];

const ENGLISH_STREETS: &[&str] = &[
    "Market Street", "Station Road", "Mill Lane", "Harbour Road", "Church Street", "Park Avenue",
    "Bridge Street", "Foundry Lane", "King Street", "Orchard Way",
];
const GERMAN_STREETS: &[&str] = &[
    "Bahnhofstraße", "Lindenweg", "Hafenstraße", "Mühlgasse", "Ringstraße", "Am Markt", "Gartenstraße",
];
const FRENCH_STREETS: &[&str] = &[
    "rue de la Gare", "avenue du Parc", "rue des Tanneurs", "quai du Port", "rue Haute", "place du Marché",
];
const SPANISH_STREETS: &[&str] = &[
    "Calle Mayor", "Avenida del Puerto", "Calle de la Fuente", "Paseo del Río", "Calle Nueva",
    "Plaza del Mercado",
];
const ITALIAN_STREETS: &[&str] = &[
    "Via Roma", "Via del Porto", "Corso Garibaldi", "Via dei Mulini", "Piazza Nuova",
];
const POLISH_STREETS: &[&str] = &["ul. Dworcowa", "ul. Lipowa", "ul. Młyńska", "ul. Portowa", "al. Parkowa"];
const NORDIC_STREETS: &[&str] = &["Hamngatan", "Storgatan", "Kungsgatan", "Kvarngatan", "Parkvägen"];
const PORTUGUESE_STREETS: &[&str] = &["Rua do Porto", "Avenida Central", "Rua das Flores", "Rua do Mercado"];

const AMERICAN: &[&str] = &["Inc.", "LLC", "Corp.", "Co."];
const BRITISH: &[&str] = &["Ltd", "plc", "LLP"];
const GERMAN: &[&str] = &["GmbH", "AG", "KG"];
const FRENCH: &[&str] = &["SA", "SARL", "SAS"];
const SPANISH: &[&str] = &["S.A.", "S.L."];

const fn city(
    name: &'static str,
    region: Option<&'static str>,
    country: &'static str,
    postal_code: &'static str,
    streets: &'static [&'static str],
    forms: &'static [&'static str],
    culture: usize,
) -> City {
    City { name, region, country, postal_code, streets, forms, culture }
}

pub const CITIES: [City; 32] = [
    city("Chicago", Some("IL"), "US", "606##", ENGLISH_STREETS, AMERICAN, 0),
    city("Boston", Some("MA"), "US", "021##", ENGLISH_STREETS, AMERICAN, 0),
    city("Seattle", Some("WA"), "US", "981##", ENGLISH_STREETS, AMERICAN, 0),
    city("Austin", Some("TX"), "US", "787##", ENGLISH_STREETS, AMERICAN, 0),
    city("Denver", Some("CO"), "US", "802##", ENGLISH_STREETS, AMERICAN, 0),
    city("Toronto", Some("ON"), "CA", "M5@ #@#", ENGLISH_STREETS, AMERICAN, 0),
    city("London", None, "GB", "EC#@ #@@", ENGLISH_STREETS, BRITISH, 0),
    city("Manchester", None, "GB", "M# #@@", ENGLISH_STREETS, BRITISH, 0),
    city("Dublin", None, "IE", "D02 @###", ENGLISH_STREETS, BRITISH, 0),
    city("Sydney", Some("NSW"), "AU", "20##", ENGLISH_STREETS, BRITISH, 0),
    city("Madrid", None, "ES", "280##", SPANISH_STREETS, SPANISH, 1),
    city("Valencia", None, "ES", "460##", SPANISH_STREETS, SPANISH, 1),
    city("Monterrey", Some("NL"), "MX", "640##", SPANISH_STREETS, SPANISH, 1),
    city("Berlin", None, "DE", "10###", GERMAN_STREETS, GERMAN, 2),
    city("Hamburg", None, "DE", "20###", GERMAN_STREETS, GERMAN, 2),
    city("Vienna", None, "AT", "1##0", GERMAN_STREETS, GERMAN, 2),
    city("Zurich", Some("ZH"), "CH", "80##", GERMAN_STREETS, GERMAN, 2),
    city("Lyon", None, "FR", "6900#", FRENCH_STREETS, FRENCH, 3),
    city("Nantes", None, "FR", "440##", FRENCH_STREETS, FRENCH, 3),
    city("Milan", Some("MI"), "IT", "201##", ITALIAN_STREETS, &["S.p.A.", "S.r.l."], 4),
    city("Kraków", None, "PL", "30-###", POLISH_STREETS, &["Sp. z o.o.", "S.A."], 5),
    city("Bengaluru", Some("KA"), "IN", "5600##", ENGLISH_STREETS, &["Pvt. Ltd", "Ltd"], 6),
    city("Pune", Some("MH"), "IN", "4110##", ENGLISH_STREETS, &["Pvt. Ltd", "Ltd"], 6),
    city("Singapore", None, "SG", "######", ENGLISH_STREETS, &["Pte. Ltd"], 7),
    city("Osaka", None, "JP", "530-00##", &["Nakanoshima", "Honmachi", "Umeda"], &["K.K."], 8),
    city("Busan", None, "KR", "48###", &["Haeundae-ro", "Gwangbok-ro"], &["Co., Ltd"], 9),
    city("Dubai", None, "AE", "", &["Al Wasl Road", "Marina Walk", "Creek Road"], &["LLC", "FZE"], 10),
    city("Lagos", Some("LA"), "NG", "10####", &["Broad Street", "Marina Road", "Awolowo Road"], &["Ltd", "plc"], 11),
    city("São Paulo", Some("SP"), "BR", "0####-###", PORTUGUESE_STREETS, &["Ltda", "S.A."], 12),
    city("Stockholm", None, "SE", "1## ##", NORDIC_STREETS, &["AB"], 13),
    city("Istanbul", None, "TR", "34###", &["Bağdat Caddesi", "Liman Sokak", "Çınar Caddesi"], &["A.Ş."], 14),
    city("Da Nang", None, "VN", "550###", &["Bạch Đằng", "Trần Phú"], &["JSC"], 15),
];

pub const INDUSTRIES: [Industry; 14] = [
    Industry { name: "Software", nouns: &["Software", "Systems", "Digital", "Cloud", "Data"] },
    Industry { name: "Manufacturing", nouns: &["Works", "Components", "Tooling", "Fabrication", "Castings"] },
    Industry { name: "Logistics", nouns: &["Logistics", "Freight", "Shipping", "Couriers"] },
    Industry { name: "Health care", nouns: &["Health", "Clinics", "Diagnostics", "Medical"] },
    Industry { name: "Construction", nouns: &["Construction", "Builders", "Engineering", "Roofing"] },
    Industry { name: "Retail", nouns: &["Stores", "Trading", "Outfitters", "Markets"] },
    Industry { name: "Finance", nouns: &["Capital", "Partners", "Advisors", "Insurance"] },
    Industry { name: "Energy", nouns: &["Energy", "Solar", "Power", "Grid"] },
    Industry { name: "Food and drink", nouns: &["Foods", "Bakeries", "Roasters", "Kitchens", "Brewery"] },
    Industry { name: "Education", nouns: &["Academy", "Learning", "Institute", "Schools"] },
    Industry { name: "Media", nouns: &["Media", "Studios", "Press", "Pictures"] },
    Industry { name: "Hospitality", nouns: &["Hotels", "Resorts", "Travel", "Catering"] },
    Industry { name: "Agriculture", nouns: &["Farms", "Orchards", "Grain", "Seeds"] },
    Industry { name: "Biotechnology", nouns: &["Bio", "Labs", "Sciences", "Therapeutics"] },
];

/// Words that begin the name of a company.
pub const ROOTS: [&str; 48] = [
    "Alder", "Amber", "Anchor", "Aspen", "Beacon", "Birch", "Bluestone", "Brightwater", "Cedar", "Cobalt",
    "Compass", "Copper", "Coral", "Crescent", "Delta", "Elm", "Ember", "Falcon", "Fern", "Granite", "Harbour",
    "Hazel", "Heron", "Highland", "Horizon", "Indigo", "Ivory", "Juniper", "Kestrel", "Lantern", "Larch",
    "Maple", "Meridian", "Nimbus", "North Star", "Oakfield", "Onyx", "Orchid", "Pinnacle", "Quarry", "Raven",
    "Ridge", "Sable", "Silverline", "Summit", "Tidewater", "Willow", "Zephyr",
];

pub const JOB_TITLES: [&str; 24] = [
    "Chief Executive Officer", "Managing Director", "Founder", "Chief Operating Officer",
    "Chief Financial Officer", "Chief Technology Officer", "Head of Procurement", "Purchasing Manager",
    "Head of IT", "IT Manager", "Operations Manager", "Facilities Manager", "Head of Marketing",
    "Marketing Manager", "Sales Director", "Finance Manager", "Controller", "Office Manager",
    "Project Manager", "Head of Product", "Supply Chain Manager", "HR Manager", "Legal Counsel",
    "Executive Assistant",
];

pub const SOURCES: [&str; 8] = [
    "Website", "Referral", "Trade fair", "Cold call", "Webinar", "Newsletter", "Partner", "Advertisement",
];

pub const CONTACT_NOTES: [&str; 8] = [
    "Prefers e-mail over calls.", "Best reached before noon.",
    "Met at the trade fair in spring; asked for references.", "Decides together with the finance department.",
    "Speaks for the whole group when it comes to purchasing.",
    "On parental leave until summer; a colleague stands in.", "Was a customer at a former employer.",
    "Wants everything in writing.",
];

pub const LOST_REASONS: [&str; 8] = [
    "Price too high", "Chose a competitor", "No budget this year", "Project was cancelled",
    "Missing features", "No answer any more", "Built it themselves", "Timing: they will look again next year",
];

/// What is next to be done for a deal, by open stage.
pub const NEXT_STEPS: [&[&str]; 4] = [
    &["Find out who decides", "Call back to arrange a first meeting", "Send the brochure"],
    &["Clarify the budget", "Meet the technical team", "Agree on the scope in writing"],
    &["Send the revised proposal", "Walk through the proposal with finance", "Arrange a reference call"],
    &["Send the contract for signature", "Settle the payment terms", "Wait for the answer of their lawyers"],
];

pub const DESCRIPTIONS: [&str; 6] = [
    "Came in through the website; they compare three suppliers.",
    "Follow-up of last year's project, with a larger scope.",
    "The present contract ends soon, and they want to change.",
    "They start with one site and mean to roll out to the others.",
    "Price matters less to them than a date they can rely on.", "A recommendation by an existing customer.",
];

pub const TRADES: [Trade; 4] = [
    Trade {
        offers: &[
            "Team licence, 25 seats", "Enterprise licence", "Data migration", "Premium support",
            "Analytics package", "Single sign-on rollout", "Two-year renewal", "Onboarding package",
            "Mobile extension", "Integration project", "Training for administrators",
            "Pilot with one department",
        ],
        median: 14_000.0,
        tenants: &["Brightpath Software", "Lumen Analytics", "Stackwell Systems", "Quillworks"],
    },
    Trade {
        offers: &[
            "Office lease, third floor", "Warehouse by the motorway", "Retail unit, old town",
            "Purchase of a plot", "Renewal of the head office lease", "Two floors at the riverside",
            "Sublease of a laboratory", "Sale of an industrial hall", "Parking for 40 cars",
            "Fit-out of a branch office",
        ],
        median: 380_000.0,
        tenants: &["Cornerstone Estates", "Harbourview Property", "Landmark & Lane", "Keystone Offices"],
    },
    Trade {
        offers: &[
            "Assembly line, two stations", "Spare parts, yearly contract", "Maintenance contract",
            "Packaging machine", "Robot cell", "Retrofit of a press", "Conveyor, 60 metres",
            "Inspection with cameras", "Safety upgrade",
        ],
        median: 85_000.0,
        tenants: &["Ironvale Machines", "Precision North", "Torque & Sons", "Vantage Automation"],
    },
    Trade {
        offers: &[
            "Strategy workshop", "Interim management", "Market study", "Process audit",
            "Coaching of the board", "Merger support", "Hiring of a sales leader", "Yearly retainer",
            "Training series",
        ],
        median: 28_000.0,
        tenants: &["Clearwater Consulting", "Northgate Advisory", "Blue Heron Partners", "Fieldstone Group"],
    },
];

pub const CALL: Talk = Talk {
    channels: &["Phone", "Video call"],
    subjects: &[
        "First call about {what}", "Follow-up on {what}", "Questions about the price of {what}",
        "Check-in with {who}", "Call back to {who}", "Details of {what}",
    ],
    outcomes: &[
        "Interested, wants an offer", "Reached the voicemail, left a message",
        "Asked us to call again next week", "Needs the approval of finance", "Agreed on the next meeting",
        "Not the right person, named a colleague",
    ],
};
pub const EMAIL: Talk = Talk {
    channels: &["E-mail"],
    subjects: &[
        "Offer: {what}", "Documents for {what}", "Re: {what}", "Thank you for your time, {who}",
        "References you asked for", "Revised terms for {what}", "Reminder: {what}",
    ],
    outcomes: &[
        "Answered the same day", "No answer yet", "Forwarded to procurement", "Asked for a discount",
        "Confirmed",
    ],
};
pub const MEETING: Talk = Talk {
    channels: &["On site", "Video call", "Our office"],
    subjects: &[
        "Demonstration of {what}", "Kick-off with {who}", "Workshop on requirements", "Negotiation of {what}",
        "Quarterly review with {who}", "Presentation to the board",
    ],
    outcomes: &[
        "Went well, proposal to follow", "Open questions about the schedule", "They want a pilot first",
        "Agreed on scope and price", "Decision expected by the end of the month", "A second meeting is needed",
    ],
};
pub const CHAT: Talk = Talk {
    channels: &["Website chat", "WhatsApp", "LinkedIn"],
    subjects: &[
        "Quick question by {who}", "Chat about {what}", "Asked for prices",
        "Shared a link to the documentation",
    ],
    outcomes: &["Answered", "Will write an e-mail", "Asked for a call", "Left the chat"],
};
pub const NOTE: Talk = Talk {
    channels: &[],
    subjects: &[
        "Note on {what}", "Who decides at the customer", "Competitor in the game", "Background of {who}",
    ],
    outcomes: &[],
};

pub const NEXT_ACTIONS: [&str; 8] = [
    "Send the offer", "Call again next week", "Arrange a meeting", "Send references",
    "Ask legal about the terms", "Prepare a demonstration", "Write a summary", "Wait for their answer",
];

pub const CONTENTS: [&str; 8] = [
    "They use an older solution today and are not happy with the service.",
    "Budget is set aside, the decision will be made by a small committee.",
    "We went through the list of requirements, most are covered.",
    "Asked for two references in the same industry.",
    "The schedule is tight: it must be in place before the summer.",
    "Another supplier is cheaper, ours is the better fit.",
    "Talked about terms of payment and the length of the contract.",
    "A friendly conversation; they will come back to us.",
];
