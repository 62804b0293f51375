DROP FUNCTION own_counter(uuid[]);
