"""Scenarios of the registry: models, versions, aliases, tags, stages, prompts."""

from __future__ import annotations

import mlflow

from tests.compat.mlflow_servers import Findings

SOURCE = "s3://bucket/models/credit"


def models(it: Findings) -> None:
    client = it.client
    it.check("a model is created", lambda: client.create_registered_model("credit", {"team": "risk"}, "who pays back"))
    it.check("a second one of its name is refused", lambda: client.create_registered_model("credit"))
    it.check("a model is read", lambda: client.get_registered_model("credit"))
    it.check("an unknown model is not found", lambda: client.get_registered_model("nobody"))
    it.check("a description is changed", lambda: client.update_registered_model("credit", "who does not"))
    it.check("and read again", lambda: client.get_registered_model("credit").description)
    it.check("a tag is set", lambda: client.set_registered_model_tag("credit", "stage of grief", "denial"))
    it.check("a tag is set again", lambda: client.set_registered_model_tag("credit", "team", "fraud"))
    it.check("a tag of numbers becomes text", lambda: client.set_registered_model_tag("credit", "number", 7))
    it.check("tags are read", lambda: client.get_registered_model("credit").tags)
    it.check("a tag is removed", lambda: client.delete_registered_model_tag("credit", "team"))
    it.check("a missing tag is removed", lambda: client.delete_registered_model_tag("credit", "nope"))
    it.check("a tag of an unknown model", lambda: client.set_registered_model_tag("nobody", "a", "b"))
    it.check("a tag that is a path is refused", lambda: client.set_registered_model_tag("credit", "../a", "b"))
    it.check("a tag with a hash is refused", lambda: client.set_registered_model_tag("credit", "a#b", "b"))
    it.check("a tag with a slash is taken", lambda: client.set_registered_model_tag("credit", "a/b", "b"))
    it.check("a value of 100,000 is taken", lambda: client.set_registered_model_tag("credit", "long", "x" * 100_000))
    it.check("a value of 100,001 is refused", lambda: client.set_registered_model_tag("credit", "long", "x" * 100_001))
    it.check("the long value is removed", lambda: client.delete_registered_model_tag("credit", "long"))
    it.check("a model is renamed", lambda: client.rename_registered_model("credit", "Credit PD (old)"))
    it.check("its old name is gone", lambda: client.get_registered_model("credit"))
    it.check("its new name is there", lambda: client.get_registered_model("Credit PD (old)"))
    it.check("another model is made", lambda: client.create_registered_model("other").name)
    it.check("a taken name is refused", lambda: client.rename_registered_model("other", "Credit PD (old)"))
    it.check("an unknown one is renamed", lambda: client.rename_registered_model("nobody", "somebody"))
    it.check("a model is deleted", lambda: client.delete_registered_model("other"))
    it.check("a deleted one is gone", lambda: client.get_registered_model("other"))
    it.check("it cannot be deleted again", lambda: client.delete_registered_model("other"))


NAMES = {
    "a slash": "a/b", "a colon": "a:b", "dots": "..", "a dot": ".", "nothing": "", "a space": " ", "a path": "a/../b",
    "an emoji": "crédit 💶", "capitals": "CREDIT", "small letters": "credit-small", "300 characters": "n" * 256,
    "a quote": "it's", "a percent": "100%", "a plus": "a+b c", "a question": "what?&x=1#y", "a dash at its end": "-x-",
    "our own form": "team-x0123456789ab", "a right-to-left mark": "a\u202eb", "digits": "007",
}  # fmt: skip


def names(it: Findings) -> None:
    client = it.client
    for about, name in NAMES.items():
        it.check(f"a name with {about} is made", lambda name=name: client.create_registered_model(name).name)
        it.check(f"a name with {about} is read", lambda name=name: client.get_registered_model(name).name)
    it.check("names that differ by case are two", lambda: [
        client.create_registered_model("Fold").name, client.create_registered_model("fold").name,
    ])  # fmt: skip
    it.check("and versions of one are not the other's", lambda: [
        client.create_model_version("Fold", SOURCE).version, client.create_model_version("fold", SOURCE).version,
    ])  # fmt: skip


def versions(it: Findings) -> None:
    client = it.client
    client.create_registered_model("v")
    it.check("a version is made", lambda: client.create_model_version(
        "v", SOURCE, run_link="http://ci/1", tags={"k": "v"}, description="first"))  # fmt: skip
    it.check("the same source is another version", lambda: client.create_model_version("v", SOURCE).version)
    it.check("one of an unknown model", lambda: client.create_model_version("nobody", SOURCE))
    it.check("one of the server's disk is refused", lambda: client.create_model_version("v", "/etc/passwd"))
    it.check("one by file is refused", lambda: client.create_model_version("v", "file:///etc/passwd"))
    it.check("one that climbs is refused", lambda: client.create_model_version("v", "s3://b/../../x"))
    it.check("one that climbs in disguise", lambda: client.create_model_version("v", "s3://b/%252e%252e/x"))
    it.check("one of an unknown run", lambda: client.create_model_version("v", "runs:/" + "0" * 32 + "/model"))
    it.check("a version is read", lambda: client.get_model_version("v", "1"))
    it.check("an unknown version", lambda: client.get_model_version("v", "9"))
    it.check("version 0", lambda: client.get_model_version("v", "0"))
    it.check("a version that is no number", lambda: client.get_model_version("v", "one"))
    it.check("its address", lambda: client.get_model_version_download_uri("v", "1"))
    it.check("its description is changed", lambda: client.update_model_version("v", "1", "second"))
    it.check("its tag is set", lambda: client.set_model_version_tag("v", "1", "team", "risk"))
    it.check("its tag is set by number", lambda: client.set_model_version_tag("v", 2, "team", "risk"))
    it.check("its tags are read", lambda: client.get_model_version("v", "1").tags)
    it.check("its tag is removed", lambda: client.delete_model_version_tag("v", "1", "team"))
    it.check("a missing tag of it is removed", lambda: client.delete_model_version_tag("v", "1", "nope"))
    it.check("a tag of an unknown version", lambda: client.set_model_version_tag("v", "9", "a", "b"))
    it.check("a version is deleted", lambda: client.delete_model_version("v", "2"))
    it.check("a deleted version is gone", lambda: client.get_model_version("v", "2"))
    it.check("it cannot be deleted twice", lambda: client.delete_model_version("v", "2"))
    it.check("its number is not given again", lambda: client.create_model_version("v", SOURCE).version)
    it.check("a version of a version", lambda: client.create_model_version("v", "models:/v/1").source)
    it.check("a copy of a version", lambda: client.copy_model_version("models:/v/1", "v2").name)
    it.check("the copy's model is there", lambda: client.get_registered_model("v2").latest_versions[0].version)


def aliases(it: Findings) -> None:
    client = it.client
    client.create_registered_model("a")
    for _ in range(3):
        client.create_model_version("a", SOURCE)
    it.check("an alias is set", lambda: client.set_registered_model_alias("a", "champion", "1"))
    it.check("an alias is read", lambda: client.get_model_version_by_alias("a", "champion"))
    it.check("an alias moves", lambda: client.set_registered_model_alias("a", "champion", 2))
    it.check("it moved", lambda: client.get_model_version_by_alias("a", "champion").version)
    it.check("aliases know capitals", lambda: client.get_model_version_by_alias("a", "Champion"))
    it.check("a second alias", lambda: client.set_registered_model_alias("a", "Champion", "3"))
    it.check("the model shows both", lambda: client.get_registered_model("a").aliases)
    it.check("an unknown alias", lambda: client.get_model_version_by_alias("a", "nope"))
    it.check("an alias of an unknown model", lambda: client.get_model_version_by_alias("nobody", "nope"))
    it.check("an alias at an unknown version", lambda: client.set_registered_model_alias("a", "x", "9"))
    it.check("latest is the highest", lambda: client.get_model_version_by_alias("a", "latest").version)
    it.check("LATEST, too", lambda: client.get_model_version_by_alias("a", "LATEST").version)
    it.check("latest cannot be set", lambda: client.set_registered_model_alias("a", "latest", "1"))
    it.check("v1 cannot be set", lambda: client.set_registered_model_alias("a", "v1", "1"))
    it.check("digits can be set", lambda: client.set_registered_model_alias("a", "17", "1"))
    it.check("an alias with a dot", lambda: client.set_registered_model_alias("a", "a.b", "1"))
    it.check("an alias with a space", lambda: client.set_registered_model_alias("a", "a b", "1"))
    it.check("an alias with an underscore first", lambda: client.set_registered_model_alias("a", "_x_", "1"))
    it.check("an alias of 255", lambda: client.set_registered_model_alias("a", "x" * 255, "1"))
    it.check("an alias of 256", lambda: client.set_registered_model_alias("a", "x" * 256, "1"))
    it.check("an alias is removed", lambda: client.delete_registered_model_alias("a", "champion"))
    it.check("a missing alias is removed", lambda: client.delete_registered_model_alias("a", "champion"))
    it.check("it is gone", lambda: client.get_model_version_by_alias("a", "champion"))
    it.check("a version with an alias is deleted", lambda: client.delete_model_version("a", "3"))
    it.check("and its alias with it", lambda: client.get_model_version_by_alias("a", "Champion"))
    it.check("latest is another one then", lambda: client.get_model_version_by_alias("a", "latest").version)


def stages(it: Findings) -> None:
    client = it.client
    client.create_registered_model("s")
    for _ in range(4):
        client.create_model_version("s", SOURCE)

    def moved(number: str, stage: str, archive: bool = False) -> str:
        return client.transition_model_version_stage("s", number, stage, archive).current_stage

    def newest(*wanted: str) -> dict[str, str]:
        found = client.get_latest_versions("s", list(wanted) or None)
        return {version.current_stage: version.version for version in found}

    it.check("a version goes to staging", lambda: moved("1", "Staging"))
    it.check("in any case of letters", lambda: moved("2", "sTAGING"))
    it.check("to production", lambda: moved("1", "Production"))
    it.check("the newest of each stage", newest)
    it.check("the newest of one stage", lambda: newest("Production"))
    it.check("the newest of an unknown stage", lambda: newest("Nirvana"))
    it.check("to production, with those there archived", lambda: moved("3", "Production", True))
    it.check("the one there was archived", lambda: client.get_model_version("s", "1").current_stage)
    it.check("archiving with no active stage", lambda: moved("4", "Archived", True))
    it.check("to the archive", lambda: moved("4", "Archived"))
    it.check("back from the archive to production", lambda: moved("4", "Production"))
    it.check("two in production", lambda: client.get_model_version("s", "3").current_stage)
    it.check("to none", lambda: moved("4", "None"))
    it.check("to where it is", lambda: moved("4", "None"))
    it.check("to an unknown stage", lambda: moved("4", "Heaven"))
    it.check("an unknown version to staging", lambda: moved("9", "Staging"))


def prompts(it: Findings) -> None:
    client = it.client
    it.check("a prompt is registered", lambda: mlflow.genai.register_prompt(
        "greet", "Hello {{name}}!", commit_message="first", tags={"tone": "warm"}))  # fmt: skip
    it.check("a second version", lambda: mlflow.genai.register_prompt("greet", "Good day {{name}}!").version)
    it.check("a prompt is loaded by number", lambda: mlflow.genai.load_prompt("greet", version=1))
    it.check("a prompt is loaded by its address", lambda: mlflow.genai.load_prompt("prompts:/greet/2").template)
    it.check("the latest", lambda: mlflow.genai.load_prompt("prompts:/greet@latest").version)
    it.check("an alias is set", lambda: mlflow.genai.set_prompt_alias("greet", "production", 1))
    it.check("loaded by alias", lambda: mlflow.genai.load_prompt("prompts:/greet@production").format(name="Ada"))
    it.check("an alias is removed", lambda: mlflow.genai.delete_prompt_alias("greet", "production"))
    it.check("an unknown alias", lambda: mlflow.genai.load_prompt("prompts:/greet@production"))
    it.check("an unknown prompt", lambda: mlflow.genai.load_prompt("nobody", version=1, allow_missing=True))
    it.check("a chat prompt", lambda: mlflow.genai.register_prompt(
        "chat", [{"role": "user", "content": "{{question}}"}]))  # fmt: skip
    it.check("a chat prompt is loaded", lambda: mlflow.genai.load_prompt("chat", version=1).template)
    it.check("a prompt's tag", lambda: client.set_prompt_tag("greet", "owner", "ada"))
    it.check("a prompt is read", lambda: client.get_prompt("greet").tags)
    it.check("a prompt version's tag", lambda: client.set_prompt_version_tag("greet", 1, "checked", "yes"))
    it.check("and read", lambda: mlflow.genai.load_prompt("greet", version=1, cache_ttl_seconds=0).tags)
    it.check("a model of a prompt's name", lambda: client.create_registered_model("greet"))
    it.check("a prompt of a model's name", lambda: (
        client.create_registered_model("a-model"), mlflow.genai.register_prompt("a-model", "x")))  # fmt: skip
    it.check("a prompt is no model", lambda: client.get_registered_model("greet"))
    it.check("a text too long", lambda: mlflow.genai.register_prompt("long", "x" * 100_001))
    it.check("its text is changed", lambda: client.set_model_version_tag("greet", "1", "mlflow.prompt.text", "Bye"))
    it.check("a prompt version is deleted", lambda: client.delete_prompt_version("greet", 2))
    it.check("it is gone", lambda: client.get_prompt_version("greet", 2))


SCENARIOS = (models, names, versions, aliases, stages, prompts)
