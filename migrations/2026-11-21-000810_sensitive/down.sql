DROP TABLE company_secrets;
DROP TABLE data_keys;
