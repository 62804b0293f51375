// The tabs that a first visit opens. Each runs as it stands on the demo data once one has signed in.

export const examples = [
  {
    query: `# Who am I, and what does the sales board look like?
# Sign in above first; then press the play button (or Ctrl-Enter).
query Board {
  viewer {
    user { name }
    tenant { name }
    role
    position # where the history stands now: see the tab DealStageChanged
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
    query: `# The latest deals with everything around them: one round trip to the database a level,
# however many deals, contacts and interactions there are.
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
    pageInfo { endCursor hasNextPage } # next page: deals(first: 5, after: "…")
  }
}
`,
  },
  {
    query: `# To move a deal: run DealsAndStages, copy the id of a deal and of another stage into
# the variables below, then run MoveDeal. The play button asks which of the two to run.
query DealsAndStages {
  deals(first: 5) { nodes { id name stage { id name } } }
  pipelines(first: 5) { nodes { name stages { id name kind } } }
}

mutation MoveDeal($input: MoveDealInput!) {
  moveDeal(input: $input) {
    deal { name status stage { name } }
    position # a subscription started with \`after:\` this position misses nothing
    userErrors { field code message }
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
    query: `# Every deal that moves, as it moves. Press play, then move a deal in the tab MoveDeal:
# this subscription goes on while you are there, and its events appear at the foot of the page.
subscription DealStageChanged {
  dealStageChanged {
    __typename
    ... on DealStageChangedEvent {
      position
      dealId
      occurredAt
      deal { name }
      fromStage { name }
      toStage { name }
      changedBy { name }
    }
    ... on UpToDate { position } # all that happened before has been sent
    ... on MustRefetch { reason } # too much was missed: read the board anew
  }
}
`,
  },
];
