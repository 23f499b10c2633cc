"""Spans of governance (DAO)."""

from __future__ import annotations

from typing import Annotated

from mapek_runtime import Key, SpanGroup

__all__ = ["dao", "proposal_creation", "proposal_execution", "quorum_check", "vote_casting"]

ProposalId = Annotated[str, Key("proposal_id")]

dao = SpanGroup("dao")


@dao.span("proposal_create")
def proposal_creation(proposal_id: ProposalId, proposal_type: str) -> None:
    """A proposal was put to the vote."""


@dao.span("vote_cast")
def vote_casting(proposal_id: ProposalId, voter: str, vote_type: str) -> None:
    """A voter said yes or no."""


@dao.span("proposal_execute")
def proposal_execution(proposal_id: ProposalId, success: bool = True) -> None:
    """What a proposal asked for was carried out."""


@dao.span("quorum_check")
def quorum_check(proposal_id: ProposalId, votes_needed: int, votes_received: int) -> None:
    """The votes on a proposal were counted against the quorum."""
