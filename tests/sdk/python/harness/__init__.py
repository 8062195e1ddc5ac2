"""What the tests drive: the server, applications, the network between them, and the databases."""

from .api import App, Problem
from .database import Database
from .executor import Executor
from .journal import Journal
from .proxy import Proxy
from .server import Server
from .waiting import eventually

__all__ = ["App", "Database", "Executor", "Journal", "Problem", "Proxy", "Server", "eventually"]
