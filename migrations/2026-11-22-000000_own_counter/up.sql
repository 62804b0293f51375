-- What a change must have reached: its own tenant's counter, and nothing else. The statement that appends to the history asks
-- this of what its update returned, and is sent together with the COMMIT: if it fails, nothing is made permanent.
CREATE FUNCTION own_counter(reached uuid[]) RETURNS uuid LANGUAGE plpgsql STABLE AS $$
DECLARE
    own uuid := nullif(current_setting('app.tenant_id', true), '')::uuid;
BEGIN
    IF reached IS NULL THEN
        RAISE EXCEPTION 'there is no counter' USING ERRCODE = 'check_violation', CONSTRAINT = 'histories_there';
    ELSIF own IS NULL OR reached <> ARRAY[own] THEN
        RAISE EXCEPTION 'reached: %', reached USING ERRCODE = 'check_violation', CONSTRAINT = 'histories_own';
    END IF;
    RETURN own;
END
$$;
