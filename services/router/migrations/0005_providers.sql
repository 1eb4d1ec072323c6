-- Providers of models that are asked elsewhere, their sealed keys, and which of them answers for a version of a group.

-- `configuration` is how it is asked (gateway/providers/configuration.py) and holds no key. `sealed` is the key as
-- gateway/sealing.py seals it: only gateways read it, and nothing ever shows it. A key is of the address that it was
-- set for: whoever changes the address sets the key anew.
CREATE TABLE provider (
    workspace     text NOT NULL,
    name          text NOT NULL CHECK (name ~ '^[a-z][a-z0-9-]{0,47}$'),
    configuration jsonb NOT NULL,
    revision      bigint NOT NULL DEFAULT 1,
    created_at    timestamptz NOT NULL,
    changed_at    timestamptz NOT NULL,
    changed_by    text NOT NULL,
    sealed        text,
    key_set_at    timestamptz,
    key_set_by    text,
    stamp         timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (workspace, name),
    CHECK (num_nulls(sealed, key_set_at, key_set_by) IN (0, 3))
);
SELECT mintmark_protect('provider');
CREATE TRIGGER tell_gateways AFTER INSERT OR UPDATE OR DELETE ON provider
    FOR EACH STATEMENT EXECUTE FUNCTION tell_gateways();

-- Versions of a group that a provider answers for, and no deployment: [{"urn": …, "version": 3, "digest": "sha256:…",
-- "provider": "acme", "model": "large-2", "statement": <the DSSE envelope of its approval, which gateways verify>}]
ALTER TABLE group_revision ADD COLUMN hosted jsonb NOT NULL DEFAULT '[]';
