DROP FUNCTION find_contacts(text), find_companies(text);
