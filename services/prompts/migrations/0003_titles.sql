-- What people call a prompt beside the name that URNs are made of, and a notice for who keeps prompts in memory.

ALTER TABLE prompt ADD COLUMN title text, ADD COLUMN tags text[] NOT NULL DEFAULT '{}';
SELECT set_config('mintmark.workspace', '*', true);
UPDATE prompt SET title = name;
ALTER TABLE prompt ALTER COLUMN title SET NOT NULL;
CREATE UNIQUE INDEX prompt_title ON prompt (workspace, title);

-- A candidate is the version of a proposal: it has its number and takes its road, but it is nobody's `latest` before
-- the proposal is merged.
ALTER TABLE prompt_version ADD COLUMN proposal uuid;

-- Whatever changes what a fetch would answer says so when it commits; no writer can forget it.
CREATE FUNCTION say_prompt_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('prompts_changed', NEW.workspace || '/' || NEW.name);
    RETURN NULL;
END $$;

CREATE TRIGGER changed AFTER INSERT OR UPDATE ON prompt_version FOR EACH ROW EXECUTE FUNCTION say_prompt_changed();
CREATE TRIGGER changed AFTER INSERT ON label_move FOR EACH ROW EXECUTE FUNCTION say_prompt_changed();
CREATE TRIGGER changed AFTER UPDATE OF tags ON prompt FOR EACH ROW EXECUTE FUNCTION say_prompt_changed();
