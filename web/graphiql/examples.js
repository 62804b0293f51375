// The tabs that a first visit opens. Each runs as it stands on the demo data once one has signed in.
// Comments are kept short: the editor is about fifty characters wide.

export const examples = [
  {
    query: `# Who am I, and how does the board look?
# Sign in above, then press play (Ctrl-Enter).
query Board {
  viewer {
    user { name }
    tenant { name }
    role
    position # where the history stands now
  }
  pipelines(first: 5) {
    nodes {
      name
      stages {
        name
        dealCount
        totalAmount { amount currencyCode }
        weightedAmount { amount currencyCode }
        deals(first: 3) { nodes { name } }
      }
    }
  }
}
`,
  },
  {
    query: `# Deals with everything around them. However
# many there are, each level of the page costs
# one statement in the database.
query Deals {
  deals(first: 5) {
    nodes {
      id
      name
      amount { amount currencyCode }
      stage { name winProbability }
      company { name }
      contact { name email }
      interactions(first: 2) {
        nodes { kind subject occurredAt }
      }
    }
    # The next page: deals(first: 5, after: "…")
    pageInfo { endCursor hasNextPage }
  }
}
`,
  },
  {
    query: `# To move a deal:
# 1. play DealsAndStages,
# 2. copy the id of a deal and of another stage
#    of its pipeline into the variables below,
# 3. play MoveDeal.
mutation MoveDeal($input: MoveDealInput!) {
  moveDeal(input: $input) {
    deal { name status stage { name } }
    # A subscription after: this position
    # misses nothing that comes later.
    position
    userErrors { field code message }
  }
}

query DealsAndStages {
  deals(first: 5) {
    nodes { id name stage { id name } }
  }
  pipelines(first: 5) {
    nodes { name stages { id name kind } }
  }
}
`,
    variables: `{
  "input": {
    "dealId": "deal_…",
    "stageId": "stage_…"
  }
}
`,
  },
  {
    query: `# Everything that happens to these kinds of
# record, for clients that keep a copy. To go on
# where it stopped, add the last position:
# changes(after: "…")
subscription Changes {
  changes(types: [DEAL, CONTACT, COMPANY]) {
    __typename
    ... on RecordChangedEvent {
      kind
      record {
        ... on Deal { name }
        ... on Contact { name }
        ... on Company { name }
      }
      changes { field from to }
      changedBy { name }
      position
      recordId
    }
    # A deleted record is no more than its id:
    ... on RecordDeletedEvent { recordId position }
    ... on UpToDate { position }
    ... on MustRefetch { reason }
  }
}
`,
  },
  {
    query: `# Every deal that moves, as it moves.
# Press play, then move a deal in the tab
# MoveDeal: this goes on meanwhile, and its
# events appear at the foot of the page.
subscription DealStageChanged {
  dealStageChanged {
    __typename
    ... on DealStageChangedEvent {
      deal { name }
      fromStage { name }
      toStage { name }
      changedBy { name }
      occurredAt
      position
      dealId
    }
    # Everything from before has been sent:
    ... on UpToDate { position }
    # Too much was missed, read the board anew:
    ... on MustRefetch { reason }
  }
}
`,
  },
];
