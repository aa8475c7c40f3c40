"""The part of a cluster that is missing beside a bare API server: CRDs, namespaces, and the hands that play the JobSet
controller, the scheduler, the kubelet and the garbage collector, because none of them runs there."""

from __future__ import annotations

import datetime
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from e2e.apiserver import CACHE
from e2e.faults.api import CRDS, EVENTS, JOBSETS, LEASES, NAMESPACES, PODS, SECRETS, SFTJOBS, Api, Object, eventually

ROOT = Path(__file__).parents[2]
JOBSET_CRD = CACHE / "go/mod/sigs.k8s.io/jobset@v0.12.0/config/components/crd/bases/jobset.x-k8s.io_jobsets.yaml"
STEPS = 12


def install_crds(api: Api) -> None:
    """Ours and JobSet's; returns when the API server serves them."""
    for path in (*sorted((ROOT / "crds").glob("*.yaml")), JOBSET_CRD):
        crd = yaml.safe_load(path.read_text())
        name = crd["metadata"]["name"]
        # The conversion webhook and annotations of an installed JobSet are no part of a bare API server.
        crd["metadata"] = {"name": name, **({"annotations": a} if (a := crd["metadata"].get("annotations")) else {})}
        crd.pop("status", None)
        api.apply(f"{CRDS}/{name}", crd)
        eventually(f"{name} is served", lambda name=name: _established(api.get(f"{CRDS}/{name}")))  # type: ignore[misc]  # a lambda's default


def _established(crd: Object | None) -> bool:
    conditions = ((crd or {}).get("status") or {}).get("conditions") or []
    return any(each["type"] == "Established" and each["status"] == "True" for each in conditions)


def sftjob(namespace: str, name: str, **spec: Any) -> Object:
    """A small job that the API server accepts."""
    return {
        "apiVersion": "pinnace.dev/v1alpha1", "kind": "SFTJob", "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "model": {"uri": "s3://models/tiny"}, "data": {"train": {"uri": "s3://data/train.jsonl"}},
            "trainer": {"device": "cpu"}, **spec,
        },
    }  # fmt: skip


@dataclass
class Hands:
    """Plays the other controllers in one namespace."""

    api: Api
    namespace: str

    def create_namespace(self) -> None:
        manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}}
        self.api.apply(f"{NAMESPACES}/{self.namespace}", manifest)
        eventually("the namespace is there", lambda: self.api.get(f"{NAMESPACES}/{self.namespace}"))

    # -- users ---------------------------------------------------------------------------------------------------------
    def submit(self, name: str, **spec: Any) -> Object:
        return self.api.create(SFTJOBS.format(self.namespace), sftjob(self.namespace, name, **spec))

    def job(self, name: str) -> Object | None:
        return self.api.get(f"{SFTJOBS.format(self.namespace)}/{name}")

    def state(self, name: str) -> str:
        return str(((self.job(name) or {}).get("status") or {}).get("state", ""))

    def delete_job(self, name: str) -> None:
        self.api.delete(f"{SFTJOBS.format(self.namespace)}/{name}")

    def assert_complete(self, name: str) -> None:
        """Wait for the right end state of a job, and check that there is nothing else.

        Exactly one JobSet per living job, owned by it; the job Complete, observed, with output; no Event twice.
        """
        eventually(f"{name} is Complete", lambda: self.state(name) == "Complete")
        job = self.job(name)
        assert job
        status = job["status"]
        conditions = {each["type"]: each["status"] for each in status["conditions"]}
        assert conditions["Complete"] == "True" and conditions.get("Failed", "False") == "False", conditions
        assert conditions.get("Stalled", "False") == "False", status
        assert status["observedGeneration"] == job["metadata"]["generation"]
        uid = job["metadata"]["uid"]
        children = [each for each in self.jobsets() if each["metadata"]["name"] == name]
        assert [each["metadata"]["ownerReferences"][0]["uid"] for each in children] == [uid]
        events = self.api.items(EVENTS.format(self.namespace), fieldSelector=f"involvedObject.uid={uid}")
        said = [(each["reason"], each["message"]) for each in events]
        assert said and len(set(said)) == len(said), said

    # -- the operator's Lease ------------------------------------------------------------------------------------------
    def lease(self) -> Object | None:
        return self.api.get(f"{LEASES.format(self.namespace)}/pinnace-operator")

    def lease_version(self) -> int:
        """Grows by at least one with each renewal."""
        return int((self.lease() or {"metadata": {"resourceVersion": "0"}})["metadata"]["resourceVersion"])

    def ca(self) -> Object | None:
        """The Secret with the progress server's CA."""
        return self.api.get(f"{SECRETS.format(self.namespace)}/pinnace-progress-tls")

    def take_lease(self, spec: Object) -> None:
        """Another replica holds the Lease from now on, whatever the one before it thinks."""
        self.api.merge(f"{LEASES.format(self.namespace)}/pinnace-operator", {"spec": spec})

    def delete_lease(self) -> None:
        self.api.delete(f"{LEASES.format(self.namespace)}/pinnace-operator")

    def answers(self) -> bool:
        """Whether the API server serves our resources (again)."""
        try:
            self.job("any")
        except (httpx.HTTPError, RuntimeError):
            return False
        return True

    # -- JobSet controller, scheduler, kubelet, garbage collector ------------------------------------------------------
    def jobset(self, name: str) -> Object | None:
        return self.api.get(f"{JOBSETS.format(self.namespace)}/{name}")

    def jobsets(self) -> list[Object]:
        return self.api.items(JOBSETS.format(self.namespace))

    def delete_jobset(self, name: str) -> None:
        self.api.delete(f"{JOBSETS.format(self.namespace)}/{name}")

    def wait_jobset(self, name: str, timeout: float = 30) -> Object:
        return eventually(f"JobSet {name}", lambda: self.jobset(name), timeout)

    def wait_gone(self, name: str) -> None:
        """Until the JobSet is gone; without a garbage collector only the operator's pruning does that."""
        eventually(f"JobSet {name} is gone", lambda: self.jobset(name) is None)

    def create_pod(self, jobset: Object, index: int = 0, *, role: int = 0) -> Object:
        """The pod that the JobSet controller's Job would make from the template of that role."""
        name = jobset["metadata"]["name"]
        replicated = jobset["spec"]["replicatedJobs"][role]
        template = replicated["template"]["spec"]["template"]
        labels = {
            **(template.get("metadata") or {}).get("labels", {}),
            "jobset.sigs.k8s.io/jobset-name": name, "jobset.sigs.k8s.io/jobset-uid": jobset["metadata"]["uid"],
            "jobset.sigs.k8s.io/replicatedjob-name": replicated["name"],
            "jobset.sigs.k8s.io/restart-attempt": "0", "batch.kubernetes.io/job-completion-index": str(index),
        }  # fmt: skip
        pod = {
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "namespace": self.namespace, "name": f"{name}-{replicated['name']}-0-{index}-x", "labels": labels,
            },
            "spec": {**template["spec"], "serviceAccountName": "default", "restartPolicy": "Never"},
        }  # fmt: skip
        return self.api.create(PODS.format(self.namespace), pod)

    def run_pod(self, pod: Object) -> None:
        """The kubelet: init container done, trainer running."""
        started = {"running": {"startedAt": _now()}}
        self._pod_status(pod, "Running", started, ready=True)

    def end_pod(self, pod: Object, outcome: Object) -> None:
        """The kubelet: the trainer ended with this termination message."""
        phase = "Succeeded" if outcome["exitCode"] == 0 else "Failed"
        ended = {
            "terminated": {
                "exitCode": outcome["exitCode"], "reason": "Completed" if outcome["exitCode"] == 0 else "Error",
                "message": json.dumps(outcome), "startedAt": _now(), "finishedAt": _now(),
            }
        }  # fmt: skip
        self._pod_status(pod, phase, ended, ready=False)

    def end_jobset(self, jobset: Object, condition: str = "Completed", message: str = "all jobs done") -> None:
        """The JobSet controller: `Completed` or `Failed`."""
        entry = {
            "type": condition, "status": "True", "reason": "AllJobsCompleted", "message": message,
            "lastTransitionTime": _now(),
        }  # fmt: skip
        path = f"{JOBSETS.format(self.namespace)}/{jobset['metadata']['name']}/status"
        self.api.merge(path, {"status": {"conditions": [entry], "terminalState": condition}})

    def complete(self, name: str) -> None:
        """From a JobSet that exists to its end, as a run without failures goes."""
        jobset = self.wait_jobset(name)
        pod = self.create_pod(jobset)
        self.run_pod(pod)
        eventually(f"{name} runs", lambda: self.state(name) == "Running")
        self.complete_after_run(name)

    def complete_after_run(self, name: str) -> None:
        """The pod of a running job ends well, and so does its JobSet."""
        jobset = self.wait_jobset(name)
        pods = self.api.items(PODS.format(self.namespace), labelSelector=f"jobset.sigs.k8s.io/jobset-name={name}")
        self.end_pod(pods[0], completed())
        self.end_jobset(jobset)

    def collect_garbage(self) -> None:
        """The garbage collector: finish foreground deletions, and delete what has lost its owner."""
        for jobset in self.jobsets():
            meta = jobset["metadata"]
            owner = next((each for each in meta.get("ownerReferences") or [] if each.get("controller")), None)
            if "foregroundDeletion" in (meta.get("finalizers") or []):
                self._delete_pods(meta["name"])
                path = f"{JOBSETS.format(self.namespace)}/{meta['name']}"
                self.api.merge(path, {"metadata": {"finalizers": None, "uid": meta["uid"]}})
            elif owner and (self.job(owner["name"]) or {"metadata": {"uid": ""}})["metadata"]["uid"] != owner["uid"]:
                self._delete_pods(meta["name"])
                self.api.delete(f"{JOBSETS.format(self.namespace)}/{meta['name']}")

    def _delete_pods(self, jobset: str) -> None:
        for pod in self.api.items(
            PODS.format(self.namespace), labelSelector=f"jobset.sigs.k8s.io/jobset-name={jobset}"
        ):
            self.api.delete(f"{PODS.format(self.namespace)}/{pod['metadata']['name']}", gracePeriodSeconds=0)

    def _pod_status(self, pod: Object, phase: str, state: Object, *, ready: bool) -> None:
        done = {"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": _now(), "finishedAt": _now()}}
        true = ("PodScheduled", "Initialized", "ContainersReady", "Ready") if ready else ("PodScheduled",)
        inits = pod["spec"].get("initContainers", ())
        status: Object = {
            "phase": phase, "startTime": _now(),
            "conditions": [{"type": each, "status": "True", "lastTransitionTime": _now()} for each in true],
            "initContainerStatuses": [_container(each, done, ready=True) for each in inits],
            "containerStatuses": [_container(each, state, ready=ready) for each in pod["spec"]["containers"]],
        }  # fmt: skip
        self.api.merge(f"{PODS.format(self.namespace)}/{pod['metadata']['name']}/status", {"status": status})


def completed() -> Object:
    """What rank 0 of a run that went well leaves behind."""
    return {
        "reason": "Completed", "message": "", "exitCode": 0, "step": STEPS, "logTail": "",
        "output": {"uri": "s3://pinnace/output", "digest": "sha256:" + "0" * 64},
    }  # fmt: skip


def _container(container: Object, state: Object, *, ready: bool) -> Object:
    return {
        "name": container["name"], "image": container["image"], "imageID": "", "restartCount": 0, "ready": ready,
        "started": ready, "state": state,
    }  # fmt: skip


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
