-- Why a version answers no longer (deploy.withdrawn), for whoever still asks for it; holds while withdrawn_at does.
ALTER TABLE served_version ADD COLUMN withdrawn_why text NOT NULL DEFAULT '';
