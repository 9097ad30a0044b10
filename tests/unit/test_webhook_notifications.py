"""Bucket notifications: what is put and removed is found, whoever tells of it, and nothing raises."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.notifications import EXCERPT_BYTES, Hints, excerpt, parse

# As the pinned MinIO sent them to the webhook of a test, without the names of that machine.
MINIO_PUT = r"""{"EventName":"s3:ObjectCreated:Put","Key":"landing/sales/a b+ä.csv","Records":[{"eventVersion":"2.0",
"eventSource":"minio:s3","awsRegion":"","eventTime":"2026-11-21T14:31:12.522Z","eventName":"s3:ObjectCreated:Put",
"userIdentity":{"principalId":"key"},"requestParameters":{"principalId":"key","region":"","sourceIPAddress":"127.0.0.1"},
"responseElements":{"x-amz-id-2":"2a82","x-amz-request-id":"18EA15E47AEC60E5","x-minio-deployment-id":"6310806e",
"x-minio-origin-endpoint":"http://127.0.0.1:9000"},"s3":{"s3SchemaVersion":"1.0","configurationId":"Config",
"bucket":{"name":"landing","ownerIdentity":{"principalId":"key"},"arn":"arn:aws:s3:::landing"},
"object":{"key":"sales%2Fa+b%2B%C3%A4.csv","size":2,"eTag":"b6d767d2f8ed5d21a44b0e5886680cb9",
"contentType":"application/octet-stream","userMetadata":{"content-type":"application/octet-stream"},
"versionId":"94bc4a12-fcaa-4bbc-9d3c-484d4e951206","sequencer":"18EA15E47B010159"}},
"source":{"host":"127.0.0.1","port":"","userAgent":"MinIO (Linux; x86_64) minio-py/7.2.20"}}]}"""
MINIO_MARKER = MINIO_PUT.replace("ObjectCreated:Put", "ObjectRemoved:DeleteMarkerCreated")
MINIO_DELETE = MINIO_PUT.replace("ObjectCreated:Put", "ObjectRemoved:Delete")

# After the examples in AWS's documentation of S3's event message structure and of its events for EventBridge.
AWS_PUT = r"""{"Records":[{"eventVersion":"2.6","eventSource":"aws:s3","awsRegion":"us-west-2",
"eventTime":"1970-01-01T00:00:00.000Z","eventName":"ObjectCreated:Put","userIdentity":{"principalId":"AIDAJDPLRKLG7"},
"requestParameters":{"sourceIPAddress":"127.0.0.1"},"responseElements":{"x-amz-request-id":"C3D1","x-amz-id-2":"FMyU"},
"s3":{"s3SchemaVersion":"1.0","configurationId":"testConfigRule","bucket":{"name":"landing",
"ownerIdentity":{"principalId":"A3NL1KOZZKExample"},"arn":"arn:aws:s3:::landing"},"object":{"key":"HappyFace.jpg",
"size":1024,"eTag":"d41d8cd98f00b204e9800998ecf8427e","versionId":"096fKKXTRTtl3on89fVO.nfljtsv6qko",
"sequencer":"0055AED6DCD90281E5"}}}]}"""
AWS_TEST = r"""{"Service":"Amazon S3","Event":"s3:TestEvent","Time":"2014-10-13T15:57:02.089Z","Bucket":"landing",
"RequestId":"5582815E1AEA5ADF","HostId":"8cLeGAmw098X5cv4Zkwcmo8vvZa3eH3eKxsPzbB9wrR"}"""
BRIDGE_DELETE = r"""{"version":"0","id":"2ee9cc15-d022-99ea-1fb8-1b1bac4850f9","detail-type":"Object Deleted",
"source":"aws.s3","account":"111122223333","time":"2021-11-12T00:00:00Z","region":"ca-central-1",
"resources":["arn:aws:s3:::landing"],"detail":{"version":"0","bucket":{"name":"landing"},"object":{"key":"a+b %41.csv",
"etag":"d41d8cd98f00b204e9800998ecf8427e","version-id":"1QW9g1Z99LUNbvaaYVpW9xDlOLU.qxgF",
"sequencer":"617f0837b476e463"},"request-id":"0BH729840619AG5K","requester":"123456789012",
"source-ip-address":"1.2.3.4","reason":"DeleteObject","deletion-type":"Delete Marker Created"}}"""
BRIDGE_PUT = BRIDGE_DELETE.replace("Object Deleted", "Object Created")
# As Ceph's documentation describes them: AWS's record with fields of its own.
CEPH_EXPIRED = r"""{"Records":[{"eventVersion":"2.2","eventSource":"ceph:s3","awsRegion":"default","eventTime":"",
"eventName":"ObjectLifecycle:Expiration:Current","userIdentity":{"principalId":"tester"},
"requestParameters":{"sourceIPAddress":""},"responseElements":{"x-amz-request-id":"","x-amz-id-2":""},
"s3":{"s3SchemaVersion":"1.0","configurationId":"mynotif1","bucket":{"name":"landing",
"ownerIdentity":{"principalId":"tester"},"arn":"arn:aws:s3:default::landing","id":"503a4c37"},"object":{"key":"a.csv",
"size":1024,"eTag":"","versionId":"","sequencer":"F7E6D75DC742D108","metadata":[],"tags":[]}},"eventId":"",
"opaqueData":"me@example.com"}]}"""


def sns(message: str, kind: str = "Notification") -> str:
    return json.dumps(
        {
            "Type": kind,
            "MessageId": "da41e39f-ea4d-435a-b922-c6aae3915ebe",
            "TopicArn": "arn:aws:sns:us-west-2:123456789012:MyTopic",
            "Subject": "Amazon S3 Notification",
            "Message": message,
            "Timestamp": "2012-04-25T21:49:25.719Z",
            "SignatureVersion": "1",
            "Signature": "EXAMPLElDMXvB8r9R83tGoNn0ecwd5UjllzsvSvbItzfaMpN2nk5HVSw7XnOn",
            "SigningCertURL": "https://sns.us-west-2.amazonaws.com/SimpleNotificationService-f3ec.pem",
            "SubscribeURL": "http://169.254.169.254/latest/meta-data/",
        }
    )


ODD = ("landing", "sales/a b+ä.csv")


@pytest.mark.parametrize(
    ("body", "created", "removed"),
    [
        pytest.param(MINIO_PUT, [ODD], [], id="minio-put"),
        pytest.param(MINIO_MARKER, [], [ODD], id="minio-marker"),
        pytest.param(MINIO_DELETE, [], [ODD], id="minio-delete"),
        pytest.param(AWS_PUT, [("landing", "HappyFace.jpg")], [], id="aws-put"),
        pytest.param(sns(AWS_PUT), [("landing", "HappyFace.jpg")], [], id="aws-by-sns"),
        pytest.param(BRIDGE_PUT, [("landing", "a+b %41.csv")], [], id="eventbridge-put"),
        pytest.param(BRIDGE_DELETE, [], [("landing", "a+b %41.csv")], id="eventbridge-delete"),
        pytest.param(sns(BRIDGE_DELETE), [], [("landing", "a+b %41.csv")], id="eventbridge-by-sns"),
        pytest.param(CEPH_EXPIRED, [], [("landing", "a.csv")], id="ceph-expired"),
        pytest.param(
            AWS_PUT.replace("ObjectCreated:Put", "LifecycleExpiration:DeleteMarkerCreated"),
            [],
            [("landing", "HappyFace.jpg")],
            id="aws-expired",
        ),
        pytest.param(
            '{"records":[{"EventName":"s3:objectcreated:put","S3":{"Bucket":{"Name":"b"},"Object":{"Key":"k%21"}}}]}',
            [("b", "k!")],
            [],
            id="letters-of-another-case",
        ),
        pytest.param(
            '{"Records":[{"s3":{"bucket":{"name":"b"},"object":{"key":"k"}}}]}', [("b", "k")], [], id="no-event-name"
        ),
    ],
)
def test_every_sender_is_understood(body: str, created: list[Any], removed: list[Any]) -> None:
    """What each sender tells of is found under the key that the object has; nothing is left over."""
    found = parse(body.encode())
    assert (found.created, found.removed, found.skipped, found.unusable) == (created, removed, 0, 0)


@pytest.mark.parametrize("body", [AWS_TEST, sns(AWS_TEST), "", " \n"], ids=["aws", "by-sns", "empty", "blank"])
def test_a_test_says_nothing(body: str) -> None:
    """A message that only tries whether we are there is nothing unusable."""
    assert parse(body.encode()) == Hints(skipped=1)


@pytest.mark.parametrize("kind", ["SubscriptionConfirmation", "UnsubscribeConfirmation"])
def test_a_subscription_is_told_of_and_not_followed(kind: str) -> None:
    """The operator is told what to do and finds the address in what is kept; the reason itself does not name it."""
    found = parse(sns("You have chosen to subscribe to the topic", kind).encode())
    (part,) = found.parts
    assert (found.changes, found.unusable) == ([], 1)
    assert "arn:aws:sns:us-west-2:123456789012:MyTopic" in part.reason
    assert "open the SubscribeURL yourself" in part.reason
    assert "169.254" not in part.reason
    assert "169.254" in excerpt(part.part)


def record(
    key: Any, *, event: str = "s3:ObjectCreated:Put", bucket: Any = "landing", sequencer: Any = "1"
) -> dict[str, Any]:
    return {
        "eventVersion": "2.0",
        "eventName": event,
        "s3": {"bucket": {"name": bucket}, "object": {"key": key, "sequencer": sequencer}},
    }


def body(*records: Any) -> bytes:
    return json.dumps({"EventName": "s3:ObjectCreated:Put", "Records": list(records)}).encode()


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=60))
def test_keys_are_unescaped(key: str) -> None:
    """Any key that S3 allows comes back as it was, escaped as in an event message or plain as in MinIO's stream."""
    assert parse(body(record(quote_plus(key)))).created == [("landing", key)]
    assert parse(body(record(key)), escaped=False).created == [("landing", key)]


def test_other_events_are_skipped() -> None:
    """Creations and removals are found with and without the prefix `s3:`, and everything else is skipped."""
    found = parse(
        body(
            record("a", event="ObjectCreated:CompleteMultipartUpload"),
            record("b", event="s3:ObjectCreated:Copy"),
            record("c", event="s3:ObjectRemoved:Delete"),
            record("d", event="s3:ObjectAccessed:Get"),
            record("e", event="ObjectTagging:Put"),
        )
    )
    assert (found.created, found.removed) == ([("landing", "a"), ("landing", "b")], [("landing", "c")])
    assert (found.skipped, found.unusable) == (2, 0)
    other = BRIDGE_PUT.replace("Object Created", "Object Tags Added")
    assert parse(other.encode()) == Hints(skipped=1)


DELETE = "ObjectRemoved:Delete"
PUT = "ObjectCreated:Put"


@pytest.mark.parametrize(
    ("first", "second", "removed"),
    [
        pytest.param((PUT, "0055AED6DCD90281E5"), (DELETE, "0055AED6DCD90281E6"), True, id="in-order"),
        pytest.param((DELETE, "0055AED6DCD90281E6"), (PUT, "0055AED6DCD90281E5"), True, id="out-of-order"),
        pytest.param((DELETE, "0055AED6DCD902"), (PUT, "0055AED6DCD90281E5"), False, id="shorter-is-padded-right"),
        pytest.param((PUT, "0056"), (DELETE, "0055AED6DCD90281E5"), False, id="shorter-and-later"),
        pytest.param((PUT, "00ab"), (DELETE, "00AA"), False, id="letters-count-alike"),
        pytest.param((PUT, "9"), (DELETE, None), True, id="one-has-none"),
        pytest.param((PUT, "9"), (DELETE, "later"), True, id="one-is-no-number"),
        pytest.param((PUT, "9"), (DELETE, 1), True, id="one-is-no-text"),
        pytest.param((PUT, "9"), (DELETE, "1" * 65), True, id="one-is-too-long"),
        pytest.param((PUT, "9"), (DELETE, "90"), True, id="the-same"),
    ],
)
def test_the_latest_change_of_a_key_is_told_by_its_sequencer(first: Any, second: Any, removed: bool) -> None:
    """Of several records of one key the one with the greatest sequencer counts; where that says nothing, the last."""
    found = parse(body(*(record("k", event=event, sequencer=sequencer) for event, sequencer in (first, second))))
    assert [(change.key, change.removed) for change in found.changes] == [("k", removed)]


def test_keys_stand_where_their_latest_change_does() -> None:
    """A repeat of the same event changes no order; a later one of the same key comes after what was before it."""

    def order(*records: Any) -> list[str]:
        return [change.key for change in parse(body(*records)).changes]

    assert order(record("b"), record("a"), record("b")) == ["b", "a"]
    assert order(record("b"), record("a"), record("b", sequencer="2")) == ["a", "b"]
    assert order(record("b", sequencer="2"), record("a"), record("b")) == ["b", "a"]
    assert order(record("b", sequencer="9"), record("a", sequencer="3")) == ["b", "a"]


def test_an_unusable_record_does_not_cost_its_neighbours() -> None:
    """Records that cannot be read are counted, each with its reason; those beside them are used."""
    bad: list[Any] = [
        None,
        {},
        7,
        {"eventName": 3},
        record("%ff"),
        record(""),
        record("x" * 1025),
        record("\ud800"),
        record("k", bucket=""),
        record("k", bucket="\udfff"),
        record(None),
        {**record("k"), "s3": []},
    ]
    found = parse(body(record("a"), *bad, record("z")))
    assert found.created == [("landing", "a"), ("landing", "z")]
    assert (found.unusable, len(found.parts)) == (len(bad), len(bad))
    assert len({part.digest for part in found.parts}) == len(bad)
    assert parse(body(*bad, *bad)).parts == found.parts


def test_of_much_rubbish_the_first_is_told() -> None:
    """All is counted, and a few are kept."""
    found = parse(body(*range(500)))
    assert (found.unusable, len(found.parts)) == (500, 20)


@pytest.mark.parametrize(
    ("rubbish", "says"),
    [
        pytest.param(b"{", "no JSON", id="cut"),
        pytest.param(b"\xff\xfe\xff", "no JSON", id="bytes"),
        pytest.param(b"[" * 200_000, "no JSON", id="deep"),
        pytest.param(b"1" * 5_000, "no JSON", id="number"),
        pytest.param(b"[]", "neither Records nor", id="list"),
        pytest.param(b'{"Records": null}', "neither Records nor", id="null"),
        pytest.param(b'{"Event": "s3:Other"}', "neither Records nor", id="other"),
        pytest.param(sns("hello").encode(), "no JSON", id="sns"),
        pytest.param(sns(sns(AWS_PUT)).encode(), "neither Records nor", id="sns-in-sns"),
        pytest.param(b'{"Type": "Notification", "Message": 3}', "no Message", id="sns-number"),
        pytest.param(
            BRIDGE_PUT.replace("aws.s3", "aws.ec2").encode(), "another service", id="eventbridge-of-another-service"
        ),
    ],
)
def test_what_cannot_be_used_says_why(rubbish: bytes, says: str) -> None:
    """A body that is no notification is one unusable part with a reason."""
    found = parse(rubbish)
    (part,) = found.parts
    assert (found.changes, found.unusable) == ([], 1)
    assert says in part.reason
    assert part.reason.isprintable()


def test_an_excerpt_is_one_printable_line() -> None:
    """Nothing in it moves a cursor, turns a line around or ends it; more than the bound is left out."""
    assert excerpt("a\n\x1b[31m\u202eä\0".encode() + b"\xff") == "a\\n\\x1b[31m\\u202eä\\x00\\xff"
    assert excerpt(b"x" * (EXCERPT_BYTES + 1)) == "x" * EXCERPT_BYTES + " …"


@given(st.binary(max_size=200))
def test_bytes_that_are_no_notification_are_counted(rubbish: bytes) -> None:
    """Whatever the bytes are, nothing raises and no key is found."""
    assert parse(rubbish).changes == []


WORDS = [
    "Records",
    "eventName",
    "s3",
    "bucket",
    "object",
    "name",
    "key",
    "sequencer",
    "detail",
    "detail-type",
    "source",
]
WORDS += ["Type", "Message", "TopicArn", "Event"]
VALUES = [
    "s3:ObjectCreated:Put",
    "ObjectRemoved:Delete",
    "Object Created",
    "Object Deleted",
    "aws.s3",
    "landing",
    "%ff",
]
VALUES += ["Notification", "SubscriptionConfirmation", "s3:TestEvent", '{"Records": [{}]}', "\ud800"]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | st.sampled_from(VALUES),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=3), inner, max_size=5)
    ),
    max_leaves=20,
)


@given(json_values, st.booleans())
def test_any_json_is_read_without_raising(value: Any, wrapped: bool) -> None:
    """Documents of the right words in the wrong shape never raise, and what is found can be asked for."""
    found = parse(json.dumps({"Records": value} if wrapped else value).encode())
    assert all(change.bucket.encode() and change.key.encode() for change in found.changes)
    assert all(part.reason.isprintable() and excerpt(part.part).isprintable() for part in found.parts)
