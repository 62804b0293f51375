-- Since when somebody is in a team: of what was before, they are told nothing by the history.
ALTER TABLE team_members ADD COLUMN since timestamptz NOT NULL DEFAULT now();
