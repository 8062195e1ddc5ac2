"""What the tests drive: the server, applications, the network between them, and the databases."""

from .api import App, Problem
from .database import Database
from .executor import Client, Executor, clients, unprepared
from .journal import Journal
from .launch import Launch
from .proxy import Proxy
from .server import Server
from .waiting import eventually

__all__ = [
    "App",
    "Client",
    "Database",
    "Executor",
    "Journal",
    "Launch",
    "Problem",
    "Proxy",
    "Server",
    "clients",
    "eventually",
    "unprepared",
]
