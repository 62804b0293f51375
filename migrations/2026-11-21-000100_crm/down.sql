DROP FUNCTION search_contacts(text), search_companies(text);
DROP TABLE interactions, deal_stage_changes, deals, pipeline_stages, pipelines, contacts, companies;
