-- Who ordered a deployment to be taken away: deploy.withdrawn names them, however much later a worker gets to it.
ALTER TABLE deployment ADD COLUMN withdrawn_by jsonb;
