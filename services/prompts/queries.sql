-- name: find_prompt(workspace, given)^
-- The prompt that has this title, else the one that has this name.
SELECT name, title, last_version, tags FROM prompt
WHERE workspace = :workspace AND (title = :given OR name = :given) AND last_version > 0
ORDER BY title = :given DESC LIMIT 1;

-- name: lock_prompt(workspace, name, title)^
-- The prompt's row, made if need be and locked until commit.
INSERT INTO prompt (workspace, name, title) VALUES (:workspace, :name, :title)
ON CONFLICT (workspace, name) DO UPDATE SET last_version = prompt.last_version
RETURNING name, title, last_version, tags;

-- name: tag_prompt(workspace, name, tags)!
-- The tags of a prompt, the same for all of its versions.
UPDATE prompt SET tags = CAST(:tags AS text[]) WHERE workspace = :workspace AND name = :name;

-- name: count_version(workspace, name, version)!
-- One more version of a locked prompt.
UPDATE prompt SET last_version = :version WHERE workspace = :workspace AND name = :name;

-- name: add_version(workspace, name, version, digest, content, commit_message, author, submission_id, published_at, proposal)!
-- A new version; it never changes.
INSERT INTO prompt_version (
    workspace, name, version, digest, content, commit_message, author, submission_id, state, published_at, proposal
) VALUES (
    :workspace, :name, :version, :digest, :content, :commit_message, :author, :submission_id, 'submitted', :published_at,
    :proposal
);

-- name: decide_version(workspace, submission_id, state, asset_version, asset_digest, code, reason)!
-- What became of it at the registry.
UPDATE prompt_version SET state = :state, asset_version = :asset_version, asset_digest = :asset_digest,
    code = :code, reason = :reason
WHERE workspace = :workspace AND submission_id = :submission_id AND state = 'submitted';

-- name: version(workspace, name, version)^
-- One version.
SELECT * FROM prompt_version WHERE workspace = :workspace AND name = :name AND version = :version;

-- name: newest(workspace, name, at)^
-- The newest version, or the newest at a time.
SELECT * FROM released
WHERE workspace = :workspace AND name = :name AND (CAST(:at AS timestamptz) IS NULL OR released_at <= :at)
ORDER BY version DESC LIMIT 1;

-- name: versions(workspace, name, before, most)
-- Versions of a prompt, newest first, below a number.
SELECT * FROM prompt_version WHERE workspace = :workspace AND name = :name AND version < :before
ORDER BY version DESC LIMIT :most;

-- name: prompts(workspace, after, most)
-- Prompts by name, behind one.
SELECT name, title, last_version, tags FROM prompt WHERE workspace = :workspace AND name > :after AND last_version > 0
ORDER BY name LIMIT :most;

-- name: label(workspace, name, label, at)^
-- The newest move of a label, or the newest at a time.
SELECT * FROM label_move
WHERE workspace = :workspace AND name = :name AND label = :label AND (CAST(:at AS timestamptz) IS NULL OR at <= :at)
ORDER BY id DESC LIMIT 1;

-- name: labels(workspace, name, at)
-- Where every label of a prompt points now, or pointed at a time.
SELECT DISTINCT ON (label) * FROM label_move
WHERE workspace = :workspace AND name = :name AND (CAST(:at AS timestamptz) IS NULL OR at <= :at)
ORDER BY label, id DESC;

-- name: label_history(workspace, name, label)
-- Every move of a label, newest first.
SELECT * FROM label_move WHERE workspace = :workspace AND name = :name AND label = :label ORDER BY id DESC LIMIT 1000;

-- name: move_label(workspace, name, label, before, after, reason, actor, at)^
-- One more move.
INSERT INTO label_move (workspace, name, label, before, after, reason, actor, at)
VALUES (:workspace, :name, :label, :before, :after, :reason, :actor, :at)
RETURNING *;

-- name: listed_prompts(workspace, title, label, tag, updated_from, updated_to, skip, most)
-- A page of prompts by title with their versions and labels; the first row's total counts all of them, a page behind
-- the last has one row with nothing else in it.
WITH pointer AS (
    SELECT DISTINCT ON (name, label) name, label, after, at FROM label_move
    WHERE workspace = :workspace AND (CAST(:title AS text) IS NULL OR name IN (
        SELECT name FROM prompt WHERE workspace = :workspace AND title = :title))
    ORDER BY name, label, id DESC
), newest AS (
    SELECT name, max(version) AS version FROM released WHERE workspace = :workspace GROUP BY name
), chosen AS (
    SELECT p.name, p.title, p.tags, n.version AS newest,
        (SELECT max(l.at) FROM pointer l WHERE l.name = p.name) AS labelled_at
    FROM prompt p JOIN newest n USING (name)
    WHERE p.workspace = :workspace
        AND (CAST(:title AS text) IS NULL OR p.title = :title)
        AND (CAST(:tag AS text) IS NULL OR :tag = ANY (p.tags))
        AND (CAST(:label AS text) IS NULL OR :label = 'latest'
             OR EXISTS (SELECT FROM pointer l WHERE l.name = p.name AND l.label = :label AND l.after IS NOT NULL))
), dated AS (
    SELECT c.*, v.content, greatest(v.published_at, c.labelled_at) AS updated_at
    FROM chosen c JOIN prompt_version v ON v.workspace = :workspace AND v.name = c.name AND v.version = c.newest
), kept AS (
    SELECT * FROM dated WHERE (CAST(:updated_from AS timestamptz) IS NULL OR updated_at >= :updated_from)
        AND (CAST(:updated_to AS timestamptz) IS NULL OR updated_at < :updated_to)
), page AS (
    SELECT * FROM kept ORDER BY title LIMIT :most OFFSET :skip
)
SELECT t.total, page.name, page.title, page.tags, page.updated_at, page.content -> 'config' AS config,
    coalesce(page.content ->> 'text' IS NOT NULL, false) AS is_text,
    ARRAY(SELECT v.version FROM prompt_version v WHERE v.workspace = :workspace AND v.name = page.name
        AND (CAST(:label AS text) IS NULL OR (:label = 'latest' AND v.version = page.newest)
             OR v.version IN (SELECT l.after FROM pointer l WHERE l.name = page.name AND l.label = :label))
        ORDER BY v.version) AS versions,
    ARRAY(SELECT l.label FROM pointer l WHERE l.name = page.name AND l.after IS NOT NULL ORDER BY l.label)
        || CASE WHEN page.name IS NULL THEN ARRAY[]::text[] ELSE ARRAY['latest'] END AS labels
FROM (SELECT count(*) AS total FROM kept) t LEFT JOIN page ON true ORDER BY page.title;

-- name: splits(workspace, name)
-- The last state of every split of a prompt.
SELECT DISTINCT ON (label) * FROM label_split WHERE workspace = :workspace AND name = :name ORDER BY label, id DESC;

-- name: split_history(workspace, name, label)
-- Every state of a label's split, newest first.
SELECT * FROM label_split WHERE workspace = :workspace AND name = :name AND label = :label ORDER BY id DESC LIMIT 1000;

-- name: split_label(workspace, name, label, arms, reason, actor, at)^
-- Another state of a label's split.
INSERT INTO label_split (workspace, name, label, arms, reason, actor, at)
VALUES (:workspace, :name, :label, :arms, :reason, :actor, :at)
RETURNING *;

-- name: protect_labels(workspace, number, labels)!
-- The labels that are protected from now on; an older word changes nothing.
INSERT INTO protection AS p (workspace, number, labels) VALUES (:workspace, :number, CAST(:labels AS text[]))
ON CONFLICT (workspace) DO UPDATE SET number = EXCLUDED.number, labels = EXCLUDED.labels
WHERE EXCLUDED.number >= p.number;

-- name: protected_labels(workspace)$
-- The labels that are protected.
SELECT labels FROM protection WHERE workspace = :workspace;

-- name: keep_verdict(workspace, name, version, digest, verdict, waivers, binding, decided_at)!
-- A gate's verdict; an older one changes nothing.
INSERT INTO verdict AS v (workspace, name, version, digest, verdict, waivers, binding, decided_at)
VALUES (:workspace, :name, :version, :digest, :verdict, CAST(:waivers AS uuid[]), :binding, :decided_at)
ON CONFLICT (workspace, name, version) DO UPDATE SET digest = EXCLUDED.digest, verdict = EXCLUDED.verdict,
    waivers = EXCLUDED.waivers, binding = EXCLUDED.binding, decided_at = EXCLUDED.decided_at
WHERE EXCLUDED.decided_at >= v.decided_at;

-- name: keep_approval(workspace, name, version, digest, decision, approver, binding, expires_at, decided_at)!
-- A person's decision; an older one changes nothing.
INSERT INTO approval AS a (workspace, name, version, digest, decision, approver, binding, expires_at, decided_at)
VALUES (:workspace, :name, :version, :digest, :decision, :approver, :binding, :expires_at, :decided_at)
ON CONFLICT (workspace, name, version) DO UPDATE SET digest = EXCLUDED.digest, decision = EXCLUDED.decision,
    approver = EXCLUDED.approver, binding = EXCLUDED.binding, expires_at = EXCLUDED.expires_at,
    decided_at = EXCLUDED.decided_at
WHERE EXCLUDED.decided_at >= a.decided_at;

-- name: keep_waiver(workspace, waiver_id, name, version, digest, measure, expires_at, withdrawn_at)!
-- A rule set aside for a version, or the same taken back; what was taken back stays so.
INSERT INTO waiver AS w (workspace, waiver_id, name, version, digest, measure, expires_at, withdrawn_at)
VALUES (:workspace, :waiver_id, :name, :version, :digest, :measure, :expires_at, :withdrawn_at)
ON CONFLICT (workspace, waiver_id) DO UPDATE SET withdrawn_at = coalesce(w.withdrawn_at, EXCLUDED.withdrawn_at);

-- name: verdict(workspace, name, version)^
-- The newest verdict on a version of the registry.
SELECT digest, verdict, waivers, binding FROM verdict
WHERE workspace = :workspace AND name = :name AND version = :version;

-- name: approval(workspace, name, version)^
-- The newest decision on a version of the registry.
SELECT digest, decision, approver, binding, expires_at FROM approval
WHERE workspace = :workspace AND name = :name AND version = :version;

-- name: waivers_in_force(workspace, name, version, digest, now)$
-- Ids of the waivers of a version that are in force.
SELECT array_agg(waiver_id) FROM waiver
WHERE workspace = :workspace AND name = :name AND version = :version AND digest = :digest AND expires_at > :now
    AND withdrawn_at IS NULL;

-- name: count_usage(workspace, names, versions, applications, group_names, fetches, at)!
-- Add fetches that were counted in memory.
INSERT INTO usage AS u (workspace, name, version, application, group_name, day, fetches, last_at)
SELECT :workspace, c.name, c.version, c.application, c.group_name, CAST(CAST(:at AS timestamptz) AT TIME ZONE 'UTC' AS date),
    c.fetches, :at
FROM unnest(CAST(:names AS text[]), CAST(:versions AS integer[]), CAST(:applications AS text[]),
    CAST(:group_names AS text[]), CAST(:fetches AS bigint[])) AS c (name, version, application, group_name, fetches)
ON CONFLICT (workspace, name, version, application, group_name, day)
DO UPDATE SET fetches = u.fetches + EXCLUDED.fetches, last_at = greatest(u.last_at, EXCLUDED.last_at);

-- name: usage_of(workspace, name, since)
-- Fetches of a prompt since a day, the most first.
SELECT version, application, group_name, CAST(sum(fetches) AS bigint) AS fetches, count(DISTINCT day) AS days,
    max(last_at) AS last_at
FROM usage WHERE workspace = :workspace AND name = :name AND day >= :since
GROUP BY version, application, group_name ORDER BY sum(fetches) DESC, version DESC, application, group_name LIMIT 1000;

-- name: keep_evidence(workspace, evaluation_id, name, version, digest, task, model, golden_set, measures, rows, errors, report, code, reason, at)!
-- What an evaluation came to.
INSERT INTO evidence (
    workspace, evaluation_id, name, version, digest, task, model, golden_set, measures, rows, errors, report, code, reason, at
) VALUES (
    :workspace, :evaluation_id, :name, :version, :digest, :task, :model, :golden_set, :measures, :rows, :errors, :report,
    :code, :reason, :at
) ON CONFLICT (workspace, evaluation_id) DO NOTHING;

-- name: evidence_of(workspace, name, version)
-- What was measured of a version of the registry, newest first.
SELECT * FROM evidence WHERE workspace = :workspace AND name = :name AND version = :version ORDER BY at DESC LIMIT 100;

-- name: evidence_by_ids(workspace, ids)
-- Evaluations by their ids.
SELECT * FROM evidence WHERE workspace = :workspace AND evaluation_id = ANY (CAST(:ids AS uuid[]));

-- name: candidates(workspace, task, model, name, most)
-- Versions that could be taken, each with its newest evaluation on a task and a model.
SELECT v.name, v.title, v.version, v.labels, e.evaluation_id, e.task, e.model, e.golden_set, e.measures, e.rows, e.at
FROM candidate v
LEFT JOIN LATERAL (
    SELECT DISTINCT ON (task, model) * FROM evidence e
    WHERE e.workspace = :workspace AND e.name = v.name AND e.version = v.asset_version AND e.digest = v.asset_digest
        AND e.code IS NULL AND (CAST(:task AS text) IS NULL OR e.task = :task)
        AND (CAST(:model AS text) IS NULL OR e.model = :model)
    ORDER BY task, model, at DESC
) e ON true
WHERE v.workspace = :workspace AND (CAST(:name AS text) IS NULL OR v.name = :name)
ORDER BY v.name, v.version DESC LIMIT :most;

-- name: close_over(workspace, urn, version, digest, names, prompt_versions, prompt_digests)!
-- A version of the registry closes over these prompts; it does so for ever.
INSERT INTO closure (workspace, name, prompt_version, prompt_digest, urn, version, digest)
SELECT :workspace, p.name, p.version, p.digest, :urn, :version, :digest
FROM unnest(CAST(:names AS text[]), CAST(:prompt_versions AS integer[]), CAST(:prompt_digests AS text[]))
    AS p (name, version, digest)
ON CONFLICT (workspace, name, prompt_version, urn, version) DO NOTHING;

-- name: keep_figures(workspace, urn, version, group_name, is_shadow, digest, role, since, until, requests, errors, latency_ms, measures)!
-- What a version did in a group's traffic, unless something newer is known.
INSERT INTO live_figures AS known (
    workspace, urn, version, group_name, is_shadow, digest, role, since, until, requests, errors, latency_ms, measures
) VALUES (
    :workspace, :urn, :version, :group_name, :is_shadow, :digest, :role, :since, :until, :requests, :errors, :latency_ms,
    :measures
) ON CONFLICT (workspace, urn, version, group_name, is_shadow) DO UPDATE SET digest = EXCLUDED.digest,
    role = EXCLUDED.role, since = EXCLUDED.since, until = EXCLUDED.until, requests = EXCLUDED.requests,
    errors = EXCLUDED.errors, latency_ms = EXCLUDED.latency_ms, measures = EXCLUDED.measures
WHERE known.until <= EXCLUDED.until;

-- name: live_evidence_of(workspace, name, prompt_version, prompt_digest)
-- What the versions that close over a version of a prompt did in traffic, newest first.
SELECT f.group_name AS "group", f.urn || '@' || f.version AS asset, f.role, f.since, f.until, f.requests, f.errors,
    f.latency_ms, f.measures
FROM closure c
JOIN live_figures f ON f.workspace = :workspace AND f.urn = c.urn AND f.version = c.version AND f.digest = c.digest
WHERE c.workspace = :workspace AND c.name = :name AND c.prompt_version = :prompt_version
    AND c.prompt_digest = :prompt_digest
ORDER BY f.until DESC, f.group_name, f.urn, f.version DESC, f.is_shadow LIMIT 100;

-- name: live_candidates(workspace, group_name, name, most)
-- Versions that could be taken, each with the newest figures of every version that closes over it, in one group or in all.
SELECT v.name, v.title, v.version, v.labels, f.group_name AS "group", f.urn || '@' || f.version AS asset, f.role, f.since,
    f.measures, f.requests AS rows, f.until AS at
FROM candidate v
LEFT JOIN (closure c JOIN live_figures f ON f.workspace = :workspace AND f.urn = c.urn AND f.version = c.version
        AND f.digest = c.digest AND (CAST(:group_name AS text) IS NULL OR f.group_name = :group_name))
    ON c.workspace = :workspace AND c.name = v.name AND c.prompt_version = v.asset_version
        AND c.prompt_digest = v.asset_digest
WHERE v.workspace = :workspace AND (CAST(:name AS text) IS NULL OR v.name = :name)
ORDER BY v.name, v.version DESC, f.until DESC, f.group_name, f.urn, f.version DESC, f.is_shadow LIMIT :most;

-- name: bind_prompt(workspace, name, model, use_case, label, actor, at)!
-- Bind a prompt's label to a model and a use case; another label takes the place of the one before.
INSERT INTO binding (workspace, name, model, use_case, label, actor, at)
VALUES (:workspace, :name, :model, :use_case, :label, :actor, :at)
ON CONFLICT (workspace, name, model, use_case)
DO UPDATE SET label = EXCLUDED.label, actor = EXCLUDED.actor, at = EXCLUDED.at;

-- name: unbind_prompt(workspace, name, model, use_case)$
-- Take a binding away; true when there was one.
WITH gone AS (
    DELETE FROM binding WHERE workspace = :workspace AND name = :name AND model = :model AND use_case = :use_case
    RETURNING 1
)
SELECT EXISTS (SELECT FROM gone);

-- name: bindings(workspace, name, model, use_case)
-- Bindings of a prompt, a model or a use case.
SELECT b.name, p.title, b.model, b.use_case, b.label, b.actor, b.at
FROM binding b JOIN prompt p USING (workspace, name)
WHERE b.workspace = :workspace AND (CAST(:name AS text) IS NULL OR b.name = :name)
    AND (CAST(:model AS text) IS NULL OR b.model = :model)
    AND (CAST(:use_case AS text) IS NULL OR b.use_case = :use_case)
ORDER BY b.use_case, b.model, p.title LIMIT 1000;

-- name: open_proposal(workspace, proposal_id, name, label, summary, base_version, head_version, authors, opened_at)!
-- A new proposal.
INSERT INTO proposal (
    workspace, proposal_id, name, label, summary, base_version, head_version, authors, state, opened_at
) VALUES (
    :workspace, :proposal_id, :name, :label, :summary, :base_version, :head_version, CAST(:authors AS text[]), 'open',
    :opened_at
);

-- name: revise_proposal(workspace, proposal_id, base_version, head_version, author)!
-- Another candidate; nobody has decided on it.
UPDATE proposal SET base_version = :base_version, head_version = :head_version, decision = NULL, decided_by = NULL,
    authors = CASE WHEN CAST(:author AS text) = ANY (authors) THEN authors ELSE authors || CAST(:author AS text) END
WHERE workspace = :workspace AND proposal_id = :proposal_id;

-- name: decide_proposal(workspace, proposal_id, decision, decided_by)!
-- What somebody else thinks of the newest candidate.
UPDATE proposal SET decision = :decision, decided_by = :decided_by
WHERE workspace = :workspace AND proposal_id = :proposal_id;

-- name: end_proposal(workspace, proposal_id, state, merged_at)!
-- It was merged or closed.
UPDATE proposal SET state = :state, merged_at = :merged_at
WHERE workspace = :workspace AND proposal_id = :proposal_id;

-- name: proposal(workspace, proposal_id)^
-- One proposal.
SELECT * FROM proposal WHERE workspace = :workspace AND proposal_id = :proposal_id;

-- name: proposal_locked(workspace, proposal_id)^
-- One proposal, locked until commit.
SELECT * FROM proposal WHERE workspace = :workspace AND proposal_id = :proposal_id FOR UPDATE;

-- name: proposals(workspace, name, state, most)
-- Proposals of a prompt, or of all, newest first.
SELECT * FROM proposal
WHERE workspace = :workspace AND (CAST(:name AS text) IS NULL OR name = :name)
    AND (CAST(:state AS text) IS NULL OR state = :state)
ORDER BY opened_at DESC, proposal_id LIMIT :most;

-- name: add_proposal_step(workspace, proposal_id, what, version, actor, reason, at)!
-- Something happened to a proposal.
INSERT INTO proposal_step (workspace, proposal_id, what, version, actor, reason, at)
VALUES (:workspace, :proposal_id, :what, :version, :actor, :reason, :at);

-- name: proposal_steps(workspace, proposal_id)
-- Everything that happened to a proposal, in order.
SELECT * FROM proposal_step WHERE workspace = :workspace AND proposal_id = :proposal_id ORDER BY id LIMIT 1000;

-- name: add_comparison(workspace, proposal_id, head_version, head_request, base_version, base_request, golden_set, task, actor, at)!
-- A candidate and what it would replace were sent to be measured.
INSERT INTO comparison (
    workspace, proposal_id, head_version, head_request, base_version, base_request, golden_set, task, actor, at
) VALUES (
    :workspace, :proposal_id, :head_version, :head_request, :base_version, :base_request, :golden_set, :task, :actor, :at
);

-- name: comparisons(workspace, proposal_id)
-- What was sent to be measured for a proposal, newest first.
SELECT * FROM comparison WHERE workspace = :workspace AND proposal_id = :proposal_id ORDER BY id DESC LIMIT 100;

-- name: labelled_versions(workspace, labels)
-- Every version that one of the labels points at (any label without names), each with those labels.
WITH pointer AS (
    SELECT DISTINCT ON (name, label) name, label, after FROM label_move WHERE workspace = :workspace
    ORDER BY name, label, id DESC
)
SELECT p.title, v.name, v.version, v.digest, v.content, array_agg(l.label ORDER BY l.label) AS labels
FROM pointer l
JOIN prompt p ON p.workspace = :workspace AND p.name = l.name
JOIN prompt_version v ON v.workspace = :workspace AND v.name = l.name AND v.version = l.after
WHERE CAST(:labels AS text[]) IS NULL OR l.label = ANY (CAST(:labels AS text[]))
GROUP BY p.title, v.name, v.version, v.digest, v.content ORDER BY p.title, v.version LIMIT 20001;
