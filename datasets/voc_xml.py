"""PASCAL VOC annotation files, and those of tools that write them."""

import codecs
import re
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import ParseError, fromstring

from utils.common.errors import UserError
from utils.common.files import is_set

_ENCODING = re.compile(rb"""<\?xml[^>]*?\sencoding\s*=\s*["']([\w.:-]+)""")
# what files that declare these in single bytes are in: with later letters, and as .NET writes them
_MEANT = {"gb2312": "gb18030", "gbk": "gb18030", "utf-16": "utf-8"}


@dataclass(frozen=True)
class Annotation:
    """What one file says: the name of its picture as written there, and (class, difficult) of each
    object.
    """

    filename: str
    objects: tuple[tuple[str, bool], ...]

    def classes(self, difficult: bool = True) -> list[str]:
        """Return the class names of the objects, those marked difficult included unless told
        otherwise.
        """
        return [name for name, is_difficult in self.objects if difficult or not is_difficult]


def read_xml(path: Path) -> Annotation:
    """Read the objects of one VOC annotation file.

    Raises:
        UserError: the file is missing, malformed or of another kind.
    """
    annotation = parsed_xml(path)
    if annotation.tag != "annotation":
        raise UserError(
            f"{path} holds <{annotation.tag}> where VOC has <annotation>; copy it again"
        )

    objects = tuple(
        (text_at(each, "name"), is_set(text_at(each, "difficult")))
        for each in annotation.findall("object")
    )
    return Annotation(text_at(annotation, "filename"), objects)


def parsed_xml(path: Path) -> Element:
    """Read the root of an XML file in any encoding that it declares and Python knows. Raises
    UserError where it is missing or no XML that is safe.
    """
    try:
        return fromstring(_decoded(path.read_bytes()))

    except FileNotFoundError as error:
        raise UserError(
            f"{path} does not exist; complete the Annotations folder or shorten the list"
        ) from error
    except ParseError as error:
        raise UserError(f"{path} is not valid XML ({error}); copy it again") from error
    except (UnicodeDecodeError, LookupError) as error:
        raise UserError(
            f"{path} cannot be read in the encoding that it declares ({error}); save it as UTF-8, "
            "and declare that"
        ) from error
    except (OSError, ValueError, DefusedXmlException) as error:
        raise UserError(f"{path} cannot be read safely as XML ({error}); copy it again") from error


def _decoded(content: bytes) -> str | bytes:
    """Decode XML that declares an encoding; the parser itself knows few, none of them Chinese."""
    if content.startswith(codecs.BOM_UTF8):
        return content.decode("utf-8-sig")
    declared = _ENCODING.match(content)
    if declared is None:
        return content
    name = declared[1].decode().lower()
    return content.decode(_MEANT.get(name, name))


def text_at(element: Element, name: str) -> str:
    """Return the text of the first element at a path, such as size/width; "" without one."""
    return (element.findtext(name) or "").strip()
