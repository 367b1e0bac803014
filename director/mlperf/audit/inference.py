"""Audits one power session of MLPerf Inference."""

from __future__ import annotations

from dataclasses import replace

from director.mlperf.audit.findings import Finding
from director.mlperf.audit.inference_files import RULES_OF_FILES
from director.mlperf.audit.inference_meter import RULES_OF_METER
from director.mlperf.audit.inference_session import Session, read_session
from director.mlperf.audit.inference_stages import RULES_OF_STAGES
from director.mlperf.audit.readings import RULES_OF_READINGS
from director.mlperf.finding import InferenceSession


def audit_session(found: InferenceSession) -> list[Finding]:
    """What is wrong with a session."""
    session: Session = read_session(found)
    findings = list(session.findings)
    for rule in (*RULES_OF_STAGES, *RULES_OF_METER, *RULES_OF_FILES):
        findings += rule(session)
    for name, stage in session.stages.items():
        if stage.readings is None:
            continue
        for rule_of_readings in RULES_OF_READINGS:
            for one in rule_of_readings(stage.readings):
                scores = name == "testing" or one.severity != "error"
                findings.append(one if scores else replace(one, severity="warning"))
    return findings
