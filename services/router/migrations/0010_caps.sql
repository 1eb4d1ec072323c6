-- What is counted of caps, the classes of assets, and the guardrails that versions bring along.

-- How much of a cap is taken in one window: spent, or leased to a gateway that is to spend it. A gateway gives back
-- what it did not need; what one held that was killed stays taken, so that no crash lets anything be spent twice.
-- unit: `usd` in pico-dollars (1e-12), `requests`, `tokens`. scope: gateway/caps/allowances.py.
CREATE TABLE cap_counter (
    workspace   text NOT NULL,
    scope       text NOT NULL,
    unit        text NOT NULL CHECK (unit IN ('usd', 'requests', 'tokens')),
    starts_at   timestamptz NOT NULL,
    ends_at     timestamptz NOT NULL,
    taken       numeric NOT NULL DEFAULT 0,
    exceeded_at timestamptz,
    PRIMARY KEY (workspace, scope, unit, starts_at, ends_at)
);
SELECT mintmark_protect('cap_counter');

-- Take what is needed now and, if there is room, up to `p_more` ahead of need, but no more than a quarter of what is
-- left, so that the last of a cap is not scattered over gateways. Nothing is granted where the need has no room;
-- `first_denial` is true once in a window, of a need.
CREATE FUNCTION lease_cap(
    p_workspace text, p_scope text, p_unit text, p_starts_at timestamptz, p_ends_at timestamptz, p_cap numeric,
    p_need numeric, p_more numeric, OUT granted numeric, OUT taken_now numeric, OUT first_denial boolean
) LANGUAGE plpgsql AS $$
DECLARE
    counter cap_counter;
    room numeric;
BEGIN
    INSERT INTO cap_counter (workspace, scope, unit, starts_at, ends_at)
    VALUES (p_workspace, p_scope, p_unit, p_starts_at, p_ends_at) ON CONFLICT DO NOTHING;
    SELECT * INTO counter FROM cap_counter
    WHERE (workspace, scope, unit, starts_at, ends_at) = (p_workspace, p_scope, p_unit, p_starts_at, p_ends_at) FOR UPDATE;
    room := p_cap - counter.taken;
    granted := 0;
    first_denial := false;
    IF p_need <= room THEN
        granted := p_need + greatest(0, least(p_more, trunc((room - p_need) / 4)));
        UPDATE cap_counter SET taken = taken + granted
        WHERE (workspace, scope, unit, starts_at, ends_at) = (p_workspace, p_scope, p_unit, p_starts_at, p_ends_at);
    ELSIF p_need > 0 AND counter.exceeded_at IS NULL THEN
        first_denial := true;
        UPDATE cap_counter SET exceeded_at = now()
        WHERE (workspace, scope, unit, starts_at, ends_at) = (p_workspace, p_scope, p_unit, p_starts_at, p_ends_at);
    END IF;
    taken_now := counter.taken + granted;
END $$;

-- Read model of classification.changed: risk and cost class of an asset, and how much a month it may cost.
CREATE TABLE asset_class (
    workspace   text NOT NULL,
    urn         text NOT NULL,
    risk        text NOT NULL,
    cost        text NOT NULL,
    monthly_usd numeric,
    who         text NOT NULL,
    why         text NOT NULL,
    changed_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (workspace, urn)
);
SELECT mintmark_protect('asset_class');
CREATE TRIGGER tell_gateways AFTER INSERT OR UPDATE ON asset_class
    FOR EACH STATEMENT EXECUTE FUNCTION tell_gateways();

-- Guards that come with a version (deploy.completed), which its groups may tighten and not loosen.
ALTER TABLE served_version ADD COLUMN guardrails jsonb NOT NULL DEFAULT '[]';
