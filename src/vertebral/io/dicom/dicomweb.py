"""Download a series from a DICOMweb server, and store results there (QIDO-RS, WADO-RS, STOW-RS)."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydicom
from pydicom.errors import InvalidDicomError

from vertebral.core.errors import ConfigError, PacsError
from vertebral.io.dicom.pacs_access import PASSWORD, TOKEN, USER, Access, SeriesAddress

Progress = Callable[[float], None]

_CONNECT_S, _READ_S = 10.0, 120.0
_BYTES_AT_ONCE = 16 << 20
_ANY_SYNTAX = (("application/dicom", "*"),)


def fetch_series(address: SeriesAddress, access: Access, folder: Path, progress: Progress = lambda share: None) -> int:
    """Download all instances of a CT series, as they are stored, into `folder` (created private); return their number.

    Raises PacsError if the server cannot be reached or trusted, refuses, does not have the series, or sends something
    else, or fewer instances than it announced; ConfigError if credentials would be sent without TLS, or if the client
    is not installed.
    """
    client = _client(address, access)
    with _explained(address):
        expected = _expected(client, address)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        count = 0
        found = client.iter_series(address.study_uid, address.series_uid, media_types=_ANY_SYNTAX)
        for count, dataset in enumerate(found, start=1):
            if str(dataset.get("SeriesInstanceUID", "")) != address.series_uid:
                raise PacsError(f"{address.base_url}: sent an instance of another series: report this to its operator")
            dataset.save_as(folder / f"{count:06d}.dcm", enforce_file_format=True)
            progress(min(1.0, count / expected) if expected else 0.0)
    if count == 0 or (expected and count < expected):
        raise PacsError(f"{address.base_url}: sent {count} of {expected} instances of the series: try again")
    progress(1.0)
    return count


def store_files(
    address: SeriesAddress, access: Access, files: Sequence[Path], progress: Progress = lambda share: None
) -> None:
    """Send DICOM files of the study of `address` to its server. Raises PacsError if the server rejects one."""
    client = _client(address, access)
    for n, file in enumerate(files):
        dataset = pydicom.dcmread(file)
        with _explained(address, f" (to store {file.name})"):
            answer = client.store_instances([dataset], study_instance_uid=address.study_uid)
        failed = answer.get("FailedSOPSequence") or []
        if failed:
            reason = failed[0].get("FailureReason", "no reason given")
            raise PacsError(f"{address.base_url}: rejected {file.name} (reason {reason}): see the log of the server")
        progress((n + 1) / len(files))


def _client(address: SeriesAddress, access: Access) -> Any:
    try:
        import requests
        from dicomweb_client.api import DICOMwebClient
    except ImportError:
        raise ConfigError("a PACS needs dicomweb-client: pip install 'vertebral[pacs]'") from None
    if (access.user or access.token) and not address.is_private:
        raise ConfigError(f"{address.base_url}: credentials would be sent unencrypted; use dicomwebs://")
    for name in ("dicomweb_client", "retrying"):  # they log UIDs, headers and tracebacks
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    session = requests.Session()
    session.trust_env = False  # otherwise ~/.netrc adds credentials, and REQUESTS_CA_BUNDLE overrides the given bundle
    session.proxies.update(requests.utils.get_environ_proxies(address.base_url))
    session.verify = str(access.ca_bundle or os.environ.get("REQUESTS_CA_BUNDLE") or "") or True
    session.auth = _authorize(access)
    client = DICOMwebClient(address.base_url, session=session, timeout=(_CONNECT_S, _READ_S), chunk_size=_BYTES_AT_ONCE)
    client.set_http_retry_params(retry=False)
    return client


def _authorize(access: Access) -> Callable[[Any], Any]:
    """Return a function that adds the credentials, if any, to a request."""
    from requests.auth import HTTPBasicAuth

    def add(request: Any) -> Any:
        if access.token:
            request.headers["Authorization"] = f"Bearer {access.token}"
        elif access.user:
            HTTPBasicAuth(access.user.encode(), access.password.encode())(request)
        return request

    return add


def _expected(client: Any, address: SeriesAddress) -> int:
    """Return the number of instances that the server announces for the series; 0 if it does not."""
    found = client.search_for_series(
        address.study_uid, search_filters={"SeriesInstanceUID": address.series_uid}, fields=["00201209"]
    )
    if not found:
        raise PacsError(f"{address.base_url}: no such series: check the UIDs of study and series")
    series = pydicom.Dataset.from_json(found[0])
    modality = str(series.get("Modality", "") or "CT")
    if modality != "CT":
        raise PacsError(f"{address.base_url}: the series is {modality}, not CT: give a CT series")
    return int(series.get("NumberOfSeriesRelatedInstances", 0) or 0)


@contextmanager
def _explained(address: SeriesAddress, about: str = "") -> Iterator[None]:
    """Convert errors of the client to PacsError with server, cause and remedy, without UIDs."""
    import requests

    server = f"{address.base_url}{about}"
    try:
        yield
    except requests.exceptions.SSLError as error:
        raise PacsError(
            f"{server}: its certificate is not trusted: give the CA bundle of your organisation as --pacs-ca"
        ) from error
    except requests.exceptions.Timeout as error:
        raise PacsError(f"{server}: did not answer in time: try again, or ask its operator") from error
    except requests.exceptions.HTTPError as error:
        status = 0 if error.response is None else error.response.status_code
        raise PacsError(f"{server}: {_refusal(status)}") from error
    except requests.exceptions.ConnectionError as error:
        raise PacsError(f"{server}: cannot be reached: check host, port and network") from error
    except (ValueError, KeyError, InvalidDicomError, requests.exceptions.RequestException) as error:
        raise PacsError(
            f"{server}: the answer is not DICOM: check that this is a DICOMweb server, and its path"
        ) from error


def _refusal(status: int) -> str:
    if status == 401:
        return f"did not accept the credentials (401): set {USER} and {PASSWORD}, or {TOKEN}"
    if status == 403:
        return "does not allow this for this user (403): ask its operator"
    if status == 404:
        return "no such study, series or path (404): check the address"
    return f"answered with error {status}: try again, or ask its operator"
