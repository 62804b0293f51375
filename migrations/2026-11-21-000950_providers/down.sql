DROP TABLE provider_proofs;
DROP TABLE provider_visits;
DROP TABLE linked_identities;
