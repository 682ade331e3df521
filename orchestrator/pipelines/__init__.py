"""Pipelines: each a status table, a pure plan, and effects, on the one engine."""

from __future__ import annotations

from orchestrator.pipelines.cut.plan import CUT_PIPELINE
from orchestrator.pipelines.stream.plan import STREAM_PIPELINE
from orchestrator.pipelines.terms import Pipeline
from statusutils import UnknownPipeline

PIPELINES: dict[str, Pipeline] = {pipeline.table.pipeline: pipeline for pipeline in (STREAM_PIPELINE, CUT_PIPELINE)}


def pipeline_for(name: str) -> Pipeline:
    """The pipeline called *name*.

    Raises:
        UnknownPipeline: there is none.
    """
    try:
        return PIPELINES[name]
    except KeyError:
        raise UnknownPipeline(name, tuple(PIPELINES)) from None
