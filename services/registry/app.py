"""Wiring of the registry, and nothing else."""

from __future__ import annotations

from services.registry import api, consumers
from services.registry.beside.reading import Besides
from services.registry.datasets import api as datasets_api
from services.registry.datasets.handlers import Datasets
from services.registry.datasets.reading import Files
from services.registry.datasets.worker import Counting, Retaining
from services.registry.foreign.assistant import Assistant
from services.registry.foreign.store import Proposals
from services.registry.graphql.answering import Answering
from services.registry.graphql.sources import Sources as GraphSources
from services.registry.handlers import Handlers
from services.registry.handlers.artefacts import Artefacts
from services.registry.handlers.batches import Batches
from services.registry.handlers.catalog import Catalog
from services.registry.handlers.exporting import Exporting
from services.registry.handlers.files import TrackedFiles
from services.registry.handlers.following import Following
from services.registry.handlers.foreign import Foreign
from services.registry.handlers.imported_runs import ImportedRuns
from services.registry.handlers.imports import Imports
from services.registry.handlers.lineage import Lineages
from services.registry.handlers.models import Models
from services.registry.handlers.pointers import Pointers
from services.registry.handlers.reading import Reading
from services.registry.handlers.registration import Registration
from services.registry.handlers.searching import Searching
from services.registry.handlers.supply import Supply
from services.registry.handlers.tracking import Tracking
from services.registry.importers.store import Imported
from services.registry.licences.store import Closures
from services.registry.mlflow import app as mlflow
from services.registry.openlineage import api as openlineage_api
from services.registry.openlineage.handlers import OpenLineage
from services.registry.openlineage.store import OpenLineageStore
from services.registry.openlineage.worker import Telling
from services.registry.reuse.bindings import Bindings
from services.registry.reuse.candidates import BySearch
from services.registry.reuse.intents import Intents
from services.registry.reuse.looking import Looking
from services.registry.reuse.store import Reuse
from services.registry.scanning.store import Scans
from services.registry.search.cache import Cache
from services.registry.search.embedders import Embedder, OfGateway, Shipped
from services.registry.search.engine import Engine
from services.registry.search.folding import Fold
from services.registry.search.index import Index
from services.registry.search.meaning import Embedding, Meanings
from services.registry.search.phrasing import Model, Phrasing
from services.registry.search.view import Reader
from services.registry.settings import Settings
from services.registry.sources import Sources
from services.registry.store import Store
from services.registry.worker import Embedders, Fetching, Folding
from shared.artefacts import open_store
from shared.clock import utc_now
from shared.db.database import Database
from shared.db.queries import load
from shared.events.registry import AssetChanged, AssetRefused, AssetRegistered, BindingCreated, DatasetRegistered
from shared.events.upstream import RunCompleted
from shared.identity.identity import Identity, signing_key
from shared.service import Service, Worker


def build(settings: Settings) -> Service:
    """The registry, ready to be started."""
    database = Database(settings.dsn, "registry", pool_size=settings.pool_size)
    store = Store(load("services.registry"))
    queries = load("services.registry.search")
    index, cache, embedders = Index(queries), Cache(settings.search_cache_bytes), _embedders(settings)
    engine = Engine(queries, Reader(queries, cache), Meanings(queries, cache, embedders))
    scans = Scans(load("services.registry.scanning"))
    proposals = Proposals(load("services.registry.foreign"))
    sources = Sources(
        roots=settings.source_roots,
        buckets=settings.source_buckets,
        hosts=settings.source_hosts,
        s3_endpoint=settings.platform.s3_endpoint,
    )
    bytes_ = open_store(settings.platform)
    artefacts = Artefacts(database, store, bytes_, sources, scans, utc_now, settings.platform.max_upload_bytes)
    closures = Closures(load("services.registry.licences"))
    besides = Besides(load("services.registry.beside"))
    reuse_queries = load("services.registry.reuse")
    reuse = Reuse(reuse_queries)
    bindings = Bindings(database, store, reuse, utc_now)
    looking = Looking(BySearch(engine), reuse, besides, closures)
    intents = Intents(database, store, reuse, looking, bindings, utc_now)
    registration = Registration(
        database, store, index, artefacts, utc_now, require_proof=settings.require_proof, intents=intents
    )
    catalog, pointers = Catalog(database, store, index, utc_now), Pointers(database, store, index, utc_now)
    reading = Reading(database, store, besides, utc_now)
    searching = Searching(database, engine, Phrasing(queries, utc_now, _model(settings)), reading)
    tracking, imported = Tracking(database, store, utc_now), Imported(load("services.registry.importers"))
    handlers = Handlers(
        artefacts,
        registration,
        pointers,
        Following(store, index, utc_now),
        reading,
        catalog,
        Lineages(database, store, utc_now),
        Supply(database, store, closures, scans, settings.platform.url, utc_now),
        Models(database, store, index, catalog, pointers, intents, utc_now),
        Answering(database, GraphSources(store, besides, engine, load("services.registry.graphql"), utc_now)),
        Batches(database),
        Exporting(searching),
        intents,
        bindings,
        Imports(
            database,
            store,
            index,
            imported,
            catalog,
            pointers,
            artefacts,
            utc_now,
        ),
        ImportedRuns(database, store, imported, tracking, utc_now),
        tracking,
        TrackedFiles(database, store, bytes_, utc_now),
        searching,
        Foreign(database, store, index, proposals, bytes_, registration, _assistant(settings), utc_now),
    )
    told = OpenLineageStore(load("services.registry.openlineage"))
    openlineage = OpenLineage(database, store, told, utc_now)
    routes = api.router(handlers)
    routes.include_router(openlineage_api.router(openlineage, settings.platform.max_body_bytes))
    workers: list[Worker] = [
        Fetching(database, store, artefacts, registration, utc_now, settings.fetch_timeout_s),
        Folding(database, Fold(queries)),
        Embedders(database, Embedding(queries, embedders[0]), utc_now),
    ]
    files = Files(bytes_)
    datasets = Datasets(database, store, registration, files, utc_now, settings.platform.url)
    routes.include_router(datasets_api.router(datasets))
    key = signing_key(settings.signing_key_file) if settings.signing_key_file else None
    workers += [
        Counting(database, store, files, utc_now),
        Retaining(database, store, files, utc_now, settings.retention_grace_s, key, settings.retention_look_s),
    ]
    if settings.openlineage_url:
        workers.append(
            Telling(database, told, openlineage, utc_now, settings.openlineage_url, settings.openlineage_api_key)
        )
    identity = Identity(settings)
    compatible = mlflow.app(handlers, identity)
    return Service(
        "registry",
        settings,
        database,
        identity,
        routes,
        consumers.table(handlers),
        tuple(workers),
        says=(AssetChanged, AssetRefused, AssetRegistered, BindingCreated, DatasetRegistered, RunCompleted),
        uploads=("/registry/v1/artefacts/", "/registry/api/2.0/mlflow-artifacts/artifacts/"),
        apart=tuple((path, compatible) for path in mlflow.PATHS),
    )


def _embedders(settings: Settings) -> tuple[Embedder, ...]:
    """The one that is wanted first; the shipped one answers until that has embedded everything."""
    key = settings.gateway_key.get_secret_value() if settings.gateway_key else None
    if settings.embeddings_group and settings.gateway_url:
        return OfGateway(settings.gateway_url, settings.embeddings_group, key), Shipped()
    return (Shipped(),)


def _model(settings: Settings) -> Model | None:
    key = settings.gateway_key.get_secret_value() if settings.gateway_key else None
    if settings.questions_group and settings.gateway_url:
        return Model(settings.gateway_url, settings.questions_group, key)
    return None


def _assistant(settings: Settings) -> Assistant | None:
    key = settings.gateway_key.get_secret_value() if settings.gateway_key else ""
    if settings.mapping_group and settings.gateway_url:
        return Assistant(settings.gateway_url, settings.mapping_group, key)
    return None
