-- What was published stays as it was published, whoever asks: the database refuses what no code here does.

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only; add a row instead of changing one', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;

-- The one change there is: what the registry made of a submitted version, once.
CREATE FUNCTION refuse_change_of_version() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    decided text[] := ARRAY['state', 'asset_version', 'asset_digest', 'code', 'reason'];
BEGIN
    IF OLD.state <> 'submitted' OR to_jsonb(NEW) - decided <> to_jsonb(OLD) - decided THEN
        RAISE EXCEPTION 'version % of prompt % was published and never changes; publish another', OLD.version, OLD.name
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER immutable BEFORE UPDATE ON prompt_version FOR EACH ROW EXECUTE FUNCTION refuse_change_of_version();
CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON prompt_version
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON label_move
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
