-- What a search finds, with the place of each row: who then reads a page of it needs no index to come to the rows again.
-- A place is that of a row's version, and holds within the statement that asked: this statement sees the same version
-- (the functions are STABLE), and no vacuum takes away what it sees. It gives no right to the row: a row that is read by
-- its place is held against the policies like any other.
--
-- As search_contacts and search_companies are, which servers of the version before still call: as the tables' owner, whom
-- no policy confines, they keep to the tenant and to the reach of the role that asks. Their search_path costs a fiftieth
-- of a search. To leave it out, each operator would have to be named with its schema, and one forgotten would be a way in.
DO $$
DECLARE
    kind text;
BEGIN
    FOREACH kind IN ARRAY ARRAY['contacts', 'companies'] LOOP
        EXECUTE format($create$
            CREATE FUNCTION find_%1$s(pattern text)
                RETURNS TABLE (place tid, id uuid, name text, created_at timestamptz, updated_at timestamptz)
                LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 100 SET search_path = %2$I, pg_temp AS $body$
            DECLARE
                sees text;
            BEGIN
                IF current_setting('role') <> 'dealstream_scoped' THEN
                    RETURN QUERY
                    SELECT c.ctid, c.id, c.name, c.created_at, c.updated_at FROM %1$I c
                     WHERE c.tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid AND c.search LIKE pattern;
                ELSE
                    sees := nullif(current_setting('app.sees_%1$s', true), '');
                    RETURN QUERY
                    SELECT c.ctid, c.id, c.name, c.created_at, c.updated_at FROM %1$I c
                     WHERE c.tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid AND c.search LIKE pattern
                       AND (sees = 'ALL' OR c.owner_id = ANY (nullif(sees, 'ALL')::uuid[]));
                END IF;
            END
            $body$
        $create$, kind, current_schema());
    END LOOP;
END
$$;
REVOKE EXECUTE ON FUNCTION find_contacts(text), find_companies(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION find_contacts(text), find_companies(text) TO dealstream_app;
